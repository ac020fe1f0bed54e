"""`calibrate`: encodings from sample inputs."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from typing import Any

from nputwin import _native
from nputwin._session import Feeds, Model, feeds_argument, model_argument

__all__ = ["calibrate"]


def calibrate(
    model: Model,
    samples: Iterable[Feeds],
    *,
    target: str | os.PathLike[str],
    percentile: float | None = None,
    formula: str = "aimet_onnx",
    activation_bits: int | None = None,
    weight_bits: int | None = None,
    per_channel: bool | None = None,
    threads: int = 0,
    max_memory: int | None = None,
    version: str = "1.0.0",
) -> dict[str, Any]:
    """Runs the float model on samples and derives an encoding for every tensor that the target quantizes.

    The target's placement rules say which tensors have an encoding, its bits, symmetry, sign, scales per channel and
    given ends, and which tensors share one; `placement` lists them. Memory does not grow with the number of samples.

    Args:
        model: As for `Session`; encodings that it has are not looked at.
        samples: Feeds, one mapping per sample; a generator is read once.
        target: The target whose placement rules say which tensors have an encoding.
        percentile: Share of the values, 50 to 100, that lies within the range of an activation; None for all of them.
        formula: How a range becomes a grid, as in `Encoding.from_min_max`.
        activation_bits: 2 to 32, of all activations; None for the target's.
        weight_bits: 2 to 32, of all weights; None for the target's.
        per_channel: Whether every weight has one scale per output channel; None for what the target says.
        threads: 0 for as many as the machine has.
        max_memory: As for `Session`.
        version: Of the encodings format: "0.6.1", "1.0.0", "2.0.0" or "2.1.0".

    Returns:
        The contents of an encodings file, for `Session(encodings=...)` or `json.dump`.

    Raises:
        InvalidError: There is no sample, a value is not finite, or an option is wrong.

    Example:
        >>> encodings = calibrate("model.onnx", ({"x": x} for x in batches), target="htp_v75")
    """
    text = _native.calibrate(
        model_argument(model),
        (feeds_argument(sample) for sample in samples),
        os.fspath(target),
        percentile=percentile,
        formula=formula,
        activation_bits=activation_bits,
        weight_bits=weight_bits,
        per_channel=per_channel,
        threads=threads,
        max_memory=max_memory,
        version=version,
    )
    encodings: dict[str, Any] = json.loads(text)
    return encodings
