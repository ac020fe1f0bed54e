"""`placement` and `check`: what a target's placement rules say of a model."""

from __future__ import annotations

import os
from typing import Any

from nputwin import _native
from nputwin._session import Encodings, Model, encodings_argument, model_argument

__all__ = ["check", "placement"]


def placement(model: Model, target: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """Which tensors of a float model the target quantizes, and onto which grid.

    The calibrator and the checker ask the same rules. Encodings that the model has play no part.

    Args:
        model: As for `Session`.
        target: Name of a target or path of a TOML file.

    Returns:
        One dictionary per float tensor, inputs first, then in the order of the nodes that read or write them: `tensor`;
        `role` ("input", "activation", "constant" or "parameter"); `op_type` and `parameter` of a parameter; `quantized`
        and `reason`; `group`, the tensor that stands for all with this encoding; and of its quantizer, or None without
        one: `bitwidth`, `signed`, `symmetric`, `narrow_range`, `unsigned_symmetric`, `axis` (None for one scale), and
        `min` and `max`, the ends that are given and not observed.

    Example:
        >>> [site["tensor"] for site in placement("model.onnx", "htp_v75") if site["quantized"]]
    """
    return _native.placement(model_argument(model), os.fspath(target))


def check(
    model: Model,
    *,
    target: str | os.PathLike[str],
    encodings: Encodings | None = None,
    allow_unmatched: bool = False,
) -> list[dict[str, str]]:
    """Where a model's encodings break the target's placement rules.

    Args:
        model: As for `Session`.
        target: Name of a target or path of a TOML file.
        encodings: Encodings for the model's tensors, as for `Session`.
        allow_unmatched: Accept encodings of tensors that the model does not have.

    Returns:
        One dictionary per finding, with `code` (a stable slug such as "placement_symmetric"), `place` (the name of a
        tensor or node), `message` and `help`; an empty list where the target would do the same.
    """
    return _native.check(model_argument(model), os.fspath(target), encodings_argument(encodings), allow_unmatched)
