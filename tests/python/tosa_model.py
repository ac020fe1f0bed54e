"""One-operator graphs for the TOSA reference model of the PyPI package tosa-tools."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

REASON = "tosa-tools is not installed (`make setup` installs it where it has a wheel)"
ts = pytest.importorskip("tosa_serializer", reason=REASON, exc_type=ImportError)
model = pytest.importorskip("tosa_reference_model", reason=REASON, exc_type=ImportError)

TYPES = {
    "int8": ts.DType.INT8,
    "uint8": ts.DType.INT8,
    "int16": ts.DType.INT16,
    "uint16": ts.DType.INT16,
    "int32": ts.DType.INT32,
    "int48": ts.DType.INT48,
}
STORAGE = {
    "int8": np.int8,
    "uint8": np.uint8,
    "int16": np.int16,
    "uint16": np.uint16,
    "int32": np.int32,
    "int48": np.int64,
}
ROUNDING = {
    "SINGLE": ts.RoundingMode.SINGLE_ROUND,
    "DOUBLE": ts.RoundingMode.DOUBLE_ROUND,
    "INEXACT": ts.RoundingMode.INEXACT_ROUND,
}


class Graph:
    """A TOSA graph under construction; tensors are names, `dtypes` their types."""

    def __init__(self) -> None:
        self.serializer = ts.TosaSerializer()
        self.feeds: list[np.ndarray] = []
        self.dtypes: dict[str, str] = {}
        self.shapes: dict[str, list[int]] = {}

    def _named(self, tensor: Any, shape: list[int], dtype: str) -> str:
        name = str(tensor.name)
        self.dtypes[name], self.shapes[name] = dtype, shape
        return name

    def input(self, values: np.ndarray, dtype: str) -> str:
        """A graph input."""
        shape = list(values.shape)
        self.feeds.append(np.ascontiguousarray(values))
        return self._named(self.serializer.addPlaceholder(shape, TYPES[dtype], None), shape, dtype)

    def constant(self, values: Any, dtype: str) -> str:
        """A constant."""
        array = np.atleast_1d(np.asarray(values))
        return self._named(
            self.serializer.addConst(list(array.shape), TYPES[dtype], array.astype(STORAGE[dtype])),
            list(array.shape),
            dtype,
        )

    def node(self, op: str, inputs: list[str], shape: list[int], dtype: str, attribute: Any) -> str:
        """An operator with one result."""
        out = self._named(self.serializer.addIntermediate(shape, TYPES[dtype]), shape, dtype)
        self.serializer.addOperator(getattr(ts.Op, op), inputs, [out], attribute)
        return out

    def rescale(
        self,
        x: str,
        multipliers: list[tuple[int, int]],
        zero_points: tuple[int, int],
        dtype: str,
        rounding: str,
        scale32: bool = True,
    ) -> str:
        """RESCALE by multiplier and shift, one pair or one per channel of the last axis."""
        attribute = ts.TosaSerializerAttribute()
        unsigned = self.dtypes[x].startswith("u"), dtype.startswith("u")
        attribute.RescaleAttribute(scale32, ROUNDING[rounding], len(multipliers) > 1, *unsigned)
        width = "int32" if scale32 else "int16"
        operands = [
            x,
            self.constant([m for m, _ in multipliers], width),
            self.constant([s for _, s in multipliers], "int8"),
            self.constant([zero_points[0]], self.dtypes[x]),
            self.constant([zero_points[1]], dtype),
        ]
        return self.node("RESCALE", operands, self.shapes[x], dtype, attribute)

    def run(self, result: str) -> np.ndarray:
        """The values of a tensor."""
        dtype, shape = self.dtypes[result], self.shapes[result]
        attribute = ts.TosaSerializerAttribute()
        attribute.IdentityAttribute()
        out = self.serializer.addOutput(shape, TYPES[dtype])
        self.serializer.addOperator(ts.Op.IDENTITY, [result], [str(out.name)], attribute)
        values, status = model.run(bytes(self.serializer.serialize()), self.feeds)
        assert status == model.GraphStatus.TOSA_VALID, status
        return np.ascontiguousarray(values[0]).view(STORAGE[dtype]).reshape(shape)
