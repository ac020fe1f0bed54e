"""Models of one quantized node, and exact rounding for oracles: python's integers and fractions only."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from math import floor, lcm

import numpy as np
import onnx
from onnx import TensorProto, helper
from small_models import constant, value

import nputwin

HALF = Fraction(1, 2)


@dataclass(frozen=True)
class Grid:
    """A per-tensor encoding. The scale is the float32 nearest to the one given."""

    scale: float
    zero: int
    dtype: str = "uint8"

    @property
    def s(self) -> Fraction:
        return Fraction(float(np.float32(self.scale)))

    @property
    def low(self) -> int:
        return int(np.iinfo(self.dtype).min)

    @property
    def high(self) -> int:
        return int(np.iinfo(self.dtype).max)

    def codes(self) -> np.ndarray:
        """All of them, in order."""
        return np.arange(self.low, self.high + 1).astype(self.dtype)

    def real(self, code: int) -> Fraction:
        return (int(code) - self.zero) * self.s

    def reals(self) -> list[Fraction]:
        """The meaning of all codes, in order."""
        return [self.real(code) for code in range(self.low, self.high + 1)]

    def saturate(self, codes: Iterable) -> np.ndarray:
        """Exact integers of any size as codes."""
        return np.clip(np.asarray(codes, dtype=object), self.low, self.high).astype(self.dtype)


@dataclass(frozen=True)
class Constant:
    """A constant operand: codes with a grid (or per-channel scales along axis 0), or reals without one."""

    array: np.ndarray
    grid: Grid | None = None
    scales: tuple[float, ...] | None = None


def one_node(
    op: str, operands: list, out: Grid, *, names: str = "abc", attributes: dict | None = None, opset: int = 21
) -> onnx.ModelProto:
    """`op` between quantizers. An operand is (grid, shape), a `Constant`, or None where it is left out."""
    nodes, tensors, inputs, read = [], [], [], []
    for name, operand in zip(names, operands, strict=False):
        if operand is None:
            read.append("")
            continue
        read.append(f"{name}_dq")
        if isinstance(operand, Constant) and operand.grid is None:
            read[-1] = name
            tensors.append(constant(name, operand.array))
            continue
        if isinstance(operand, Constant):
            grid, axis = operand.grid, {} if operand.scales is None else {"axis": 0}
            scales = grid.scale if operand.scales is None else operand.scales
            tensors.append(constant(f"{name}_q", operand.array.astype(grid.dtype)))
        else:
            (grid, shape), axis, scales = operand, {}, operand[0].scale
            inputs.append(value(name, shape))
            nodes.append(helper.make_node("QuantizeLinear", [name, f"{name}_s", f"{name}_z"], [f"{name}_q"]))
        zeros = np.full(np.shape(scales), grid.zero, grid.dtype)
        tensors += [constant(f"{name}_s", np.float32(scales)), constant(f"{name}_z", zeros)]
        triple = [f"{name}_q", f"{name}_s", f"{name}_z"]
        nodes.append(helper.make_node("DequantizeLinear", triple, [f"{name}_dq"], **axis))
    tensors += [constant("y_s", np.float32(out.scale)), constant("y_z", np.array(out.zero, out.dtype))]
    nodes += [
        helper.make_node(op, read, ["r"], "node", **(attributes or {})),
        helper.make_node("QuantizeLinear", ["r", "y_s", "y_z"], ["y_q"]),
        helper.make_node("DequantizeLinear", ["y_q", "y_s", "y_z"], ["y"]),
    ]
    graph = helper.make_graph(nodes, "g", inputs, [value("y", None, TensorProto.FLOAT)], tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)


def run_codes(model: onnx.ModelProto, feeds: dict[str, np.ndarray], *, target: str, **options) -> np.ndarray:
    """The node's codes on codes. The node must run on integers."""
    session = nputwin.Session(model, target=target, threads=1, **options)
    report = session.report([list(feeds[port.name].shape) for port in session.get_inputs()])
    assert {node.mode for node in report.nodes} <= {"integer", "move", "folded", "intrinsic"}, report.nodes
    return session.run_quantized(None, feeds)[0]


def half_up(v: Fraction) -> int:
    return floor(v + HALF)


def half_even(v: Fraction) -> int:
    return round(v)


def truncated(v: Fraction) -> int:
    return int(v)


def significant(v: Fraction, bits: int) -> Fraction:
    """The nearest positive number of so many significant bits, ties to even."""
    exponent = v.numerator.bit_length() - v.denominator.bit_length()
    step = Fraction(2) ** (exponent - bits)
    while v / step >= 2**bits:
        step *= 2
    while v / step < 2 ** (bits - 1):
        step /= 2
    return round(v / step) * step


def integers(values: list[Fraction]) -> tuple[np.ndarray, int]:
    """Fractions as integers over one denominator."""
    denominator = lcm(*(v.denominator for v in values))
    return np.array([int(v * denominator) for v in values], dtype=object), denominator


def half_up_of_sums(f: list[Fraction], g: list[Fraction]) -> np.ndarray:
    """f[i] + g[j] rounded half up, exact."""
    numbers, d = integers([*f, *g])
    sums = numbers[: len(f), None] + numbers[None, len(f) :]
    return (2 * sums + d) // (2 * d)


def half_up_of_products(f: list[Fraction], g: list[Fraction], offset: Fraction) -> np.ndarray:
    """f[i]·g[j] + offset rounded half up, exact."""
    (a, da), (b, db) = integers(f), integers(g)
    d = da * db * offset.denominator
    products = a[:, None] * b[None, :] * offset.denominator + offset.numerator * da * db
    return (2 * products + d) // (2 * d)
