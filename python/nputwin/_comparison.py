"""`compare`: how two runs of a model differ, tensor by tensor."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy.typing as npt

from nputwin import _html, _native
from nputwin._session import Encodings, Feeds, Model, encodings_argument, feeds_argument, model_argument
from nputwin.errors import invalid

__all__ = ["Comparison", "FirstDifference", "TensorDifference", "compare"]


@dataclass(frozen=True)
class FirstDifference:
    """The first element that differs.

    Attributes:
        sample: Which sample, counted from zero.
        index: Flat index, row-major.
        left: Code (or real, where there are no codes) of the run under test.
        right: The same of the reference.
    """

    sample: int
    index: int
    left: float
    right: float


@dataclass(frozen=True)
class TensorDifference:
    """How one tensor differs. Quanta are steps of its grid; where it has no encoding, the fields are None.

    Attributes:
        name: Tensor name.
        basis: "codes" (both hold codes of one encoding), "scaled" (reals over the scale) or "reals".
        elements: Number of elements over all samples.
        differing: Elements that differ.
        exact: Share of elements that do not differ, 0 to 1.
        off_by_n: Largest difference in quanta.
        l1_quanta: Mean of |difference| in quanta.
        mse_quanta: Mean of the squared difference in quanta.
        mse: Mean squared difference of the reals.
        cosine: Cosine of the angle between the two tensors of reals.
        sqnr_db: Signal to noise ratio of the reals in dB; None where they are equal.
        max_abs: Largest difference of the reals.
        first: The first element that differs; None where none does.
    """

    name: str
    basis: str
    elements: int
    differing: int
    exact: float
    off_by_n: int | None
    l1_quanta: float | None
    mse_quanta: float | None
    mse: float
    cosine: float
    sqnr_db: float | None
    max_abs: float
    first: FirstDifference | None


@dataclass(frozen=True)
class Comparison:
    """How two runs differ.

    Attributes:
        tensors: Tensors in graph order.
        only_target: Tensors that only the run under test has.
        only_reference: Tensors that only the reference has.
    """

    tensors: list[TensorDifference]
    only_target: list[str]
    only_reference: list[str]

    @property
    def first_differing(self) -> TensorDifference | None:
        """The first tensor in graph order that differs; None where all are equal."""
        return next((tensor for tensor in self.tensors if tensor.differing), None)

    def _repr_html_(self) -> str:
        rows = [
            (t.name, t.basis, t.elements, f"{t.exact:.4%}", t.off_by_n, t.l1_quanta, t.mse, t.cosine, t.sqnr_db)
            for t in self.tensors
        ]
        head = ["tensor", "in", "elements", "exact", "off by n", "L1 (quanta)", "MSE", "cosine", "SQNR (dB)"]
        first = self.first_differing
        return _html.table(head, rows, f"first differing tensor: {first.name}" if first else "no differences")


def compare(
    model: Model,
    target: str | os.PathLike[str],
    reference: str | os.PathLike[str] | Sequence[Mapping[str, npt.ArrayLike]] | Mapping[str, npt.ArrayLike],
    feeds: Feeds | Sequence[Feeds],
    *,
    encodings: Encodings | None = None,
    threads: int = 0,
    assume: Mapping[str, str] | None = None,
) -> Comparison:
    """Runs a model under a target and compares every tensor with a reference.

    Args:
        model: As for `Session`.
        target: The target under test.
        reference: Another target, or captured tensors: arrays by tensor name or alias, one mapping per sample. Integer
            arrays are codes, where the target holds the tensor as codes; float arrays are reals.
        feeds: Inputs of one sample, or a sequence of samples; differences are summed over them.
        encodings: As for `Session`.
        threads: As for `Session`.
        assume: As for `Session`, for the target under test.

    Raises:
        InvalidError: Also where captured tensors have another shape than the model's.

    Example:
        >>> compare("model.onnx", "htp_v75", "fake_quant", {"x": x}, encodings="model.encodings").first_differing
    """
    source, grids = model_argument(model), encodings_argument(encodings)

    def session(name: str | os.PathLike[str], choices: Mapping[str, str] | None) -> _native.Session:
        chosen = list(choices.items()) if choices else None
        return _native.Session(source, os.fspath(name), encodings=grids, threads=threads, assume=chosen)

    samples = [feeds] if isinstance(feeds, Mapping) else list(feeds)
    under_test = session(target, assume)
    comparison = _native.Comparison()
    if isinstance(reference, str | os.PathLike):
        other = session(reference, None)
        for sample in samples:
            comparison.add(feeds_argument(sample), under_test, other)
    else:
        captured = [reference] if isinstance(reference, Mapping) else list(reference)
        if len(captured) != len(samples):
            raise invalid("capture_samples", f"{len(captured)} captures for {len(samples)} samples")
        for sample, tensors in zip(samples, captured, strict=True):
            comparison.add_captured(feeds_argument(sample), under_test, feeds_argument(tensors))
    return _finished(json.loads(comparison.finish()))


def _finished(table: dict[str, Any]) -> Comparison:
    tensors = []
    for row in table["tensors"]:
        first = row.pop("first")
        tensors.append(TensorDifference(**row, first=FirstDifference(**first) if first else None))
    return Comparison(tensors, table["only_target"], table["only_reference"])
