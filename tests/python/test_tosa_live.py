"""Target `tosa` against the TOSA reference model, bit for bit, on fresh seeds.

Each case is one operator of ONNX and the graph of TOSA operators that stands for it. Multipliers and shifts are derived
here from the scales in exact arithmetic. Scales are powers of two in half of the cases: many results lie on ties.
"""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from conftest import fresh_rng
from onnx import TensorProto, helper
from small_models import constant, value

import nputwin

tosa_model = pytest.importorskip("tosa_model")
ts = tosa_model.ts
Graph = tosa_model.Graph

ONNX_TYPES = {
    "int8": TensorProto.INT8,
    "uint8": TensorProto.UINT8,
    "int16": TensorProto.INT16,
    "uint16": TensorProto.UINT16,
    "int32": TensorProto.INT32,
}
Grid = tuple[float, int, str]  # scale (a float32), zero point, type


def multiplier(r: Fraction, bits: int) -> tuple[int, int]:
    """Mantissa in [0.5, 1) with that many bits, half away from zero, and the right shift that goes with it."""
    exponent = r.numerator.bit_length() - r.denominator.bit_length()
    while r >= Fraction(2) ** exponent:
        exponent += 1
    while r < Fraction(2) ** (exponent - 1):
        exponent -= 1
    mantissa = int(r / Fraction(2) ** (exponent - bits) + Fraction(1, 2))
    if mantissa == 2**bits:
        mantissa, exponent = mantissa // 2, exponent + 1
    return mantissa, bits - exponent


def f64(*factors: float) -> Fraction:
    """A product of float64 numbers, rounded after each step, as the spec's programs compute it."""
    out = 1.0
    for factor in factors:
        out *= factor
    return Fraction(out)


def random_scale(rng: np.random.Generator, power: bool) -> float:
    return float(2.0 ** rng.integers(-7, 0)) if power else float(np.float32(rng.uniform(0.004, 0.4)))


def random_grid(rng: np.random.Generator, dtype: str, power: bool) -> Grid:
    info = np.iinfo(dtype)
    zero = (
        0 if dtype in ("int16", "int32") else 32768 if dtype == "uint16" else int(rng.integers(info.min, info.max + 1))
    )
    return random_scale(rng, power), zero, dtype


def run_ours(
    op: str,
    operands: list[tuple[np.ndarray, Grid, bool]],
    extra: list[np.ndarray],
    out: Grid,
    attributes: dict | None = None,
    parameters: dict[str, str] | None = None,
    domain: str = "",
) -> np.ndarray:
    """The operator on codes. An operand is codes, a grid, and whether it is constant; `extra` are plain constants."""
    nodes, tensors, inputs, names, feeds = [], [], [], [], {}
    for name, (codes, (scale, zero, dtype), is_constant) in zip("abc", operands, strict=False):
        if is_constant:
            tensors.append(constant(name, codes))
        else:
            inputs.append(value(name, codes.shape, ONNX_TYPES[dtype]))
            feeds[name] = codes
        tensors += [constant(f"{name}s", np.float32(scale)), constant(f"{name}z", np.array(zero, dtype))]
        nodes.append(helper.make_node("DequantizeLinear", [name, f"{name}s", f"{name}z"], [f"{name}r"]))
        names.append(f"{name}r")
    for i, array in enumerate(extra):
        tensors.append(constant(f"extra{i}", array))
        names.append(f"extra{i}")
    stated = {f"nputwin.{k}": v for k, v in (parameters or {}).items()}
    nodes.append(helper.make_node(op, names, ["r"], "node", domain=domain, **(attributes or {}), **stated))
    tensors += [constant("ys", np.float32(out[0])), constant("yz", np.array(out[1], out[2]))]
    nodes.append(helper.make_node("QuantizeLinear", ["r", "ys", "yz"], ["y"]))
    graph = helper.make_graph(nodes, "g", inputs, [value("y", None, ONNX_TYPES[out[2]])], tensors)
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("nputwin", 1)]
    session = nputwin.Session(helper.make_model(graph, opset_imports=opsets, ir_version=10), target="tosa", threads=1)
    modes = {node.mode for node in session.report([list(codes.shape) for codes in feeds.values()]).nodes}
    assert modes == {"integer"}
    return session.run(None, feeds)[0]


def check(got: np.ndarray, expected: np.ndarray) -> None:
    assert got.shape == expected.shape
    differing = np.flatnonzero(got.astype(np.int64) != expected.astype(np.int64))
    assert not differing.size, f"{differing.size} of {expected.size} differ, first at {differing[:5]}"


def codes_of(rng: np.random.Generator, dtype: str, r: Fraction, zero: int) -> np.ndarray:
    """All codes of a narrow type; of int32 those around ties of a rescale by r, and extremes."""
    if dtype != "int32":
        info = np.iinfo(dtype)
        return np.arange(info.min, info.max + 1).astype(dtype).reshape(1, 16, -1)
    ties = [int((2 * int(k) + 1) / (2 * r)) for k in rng.integers(-200, 200, 500)]
    near = np.add.outer(np.array(ties), [-1, 0, 1]).ravel()
    powers = np.array([sign * 2**k + d for k in range(24) for sign in (-1, 1) for d in (-1, 0, 1)])
    codes = np.concatenate([near, powers])
    limit = int(min(Fraction(2**31 - 1), (2**30) / r))
    return np.clip(codes + zero, -limit, limit).astype(np.int32).reshape(1, 1, -1)


TYPES = [
    *(("int8", out) for out in ("int8", "uint8", "int16")),
    *(("uint8", out) for out in ("int8",)),
    *(("int16", out) for out in ("int8", "int16")),
    ("uint16", "int16"),
    *(("int32", out) for out in ("int8", "int16")),
]


# TOSA has no double rounding with 16-bit multipliers.
MODES = [("SINGLE", True), ("DOUBLE", True), ("INEXACT", True), ("SINGLE", False), ("INEXACT", False)]


@pytest.mark.parametrize(("rounding", "scale32"), MODES)
@pytest.mark.parametrize("types", TYPES, ids=lambda t: "-".join(t))
def test_rescale(types: tuple[str, str], rounding: str, scale32: bool) -> None:
    rng = fresh_rng()
    for power in (True, False, True, False):
        x, y = random_grid(rng, types[0], power), random_grid(rng, types[1], power)
        ratio = f64(x[0] / y[0])
        if types[0] == "int32":
            y = (float(np.float32(y[0] * 2.0**12)), *y[1:])
            ratio = f64(x[0] / y[0])
        codes = codes_of(rng, types[0], ratio, x[1])
        graph = Graph()
        pair = multiplier(ratio, 31 if scale32 else 15)
        result = graph.rescale(graph.input(codes, types[0]), [pair], (x[1], y[1]), types[1], rounding, scale32)
        parameters = {"rounding_mode": rounding, "scale32": str(scale32).lower()}
        ours = run_ours("Requantize", [(codes, x, False)], [], y, parameters=parameters, domain="nputwin")
        check(ours, graph.run(result))


def test_table_of_int8() -> None:
    rng = fresh_rng()
    table = rng.integers(-128, 128, 256).astype(np.int8)
    codes = np.arange(-128, 128).astype(np.int8).reshape(1, 256)
    graph = Graph()
    attribute = ts.TosaSerializerAttribute()
    attribute.TableAttribute()
    result = graph.node(
        "TABLE", [graph.input(codes, "int8"), graph.constant(table, "int8")], [1, 256], "int8", attribute
    )
    unit = (1.0, 0, "int8")
    check(run_ours("LookUp", [(codes, unit, False)], [table], unit, domain="nputwin"), graph.run(result))


def channels_last(codes: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(codes.transpose(0, 2, 3, 1))


CONVS = [(kind, rounding) for kind in ("conv", "depthwise") for rounding in ("SINGLE", "DOUBLE")]


@pytest.mark.parametrize(("kind", "rounding"), [*CONVS, ("int16", "SINGLE")])
def test_conv(kind: str, rounding: str) -> None:
    rng = fresh_rng()
    dtype, wide = ("int16", "int48") if kind == "int16" else ("int8", "int32")
    for power in (True, False):
        x, y = random_grid(rng, dtype, power), random_grid(rng, dtype, power)
        w = (random_scale(rng, power), 0, "int8")
        y = (float(np.float32(y[0] * 16)), *y[1:])
        channels, outputs = 6, 6 if kind == "depthwise" else 5
        spread = 40 if kind == "int16" else 128
        codes = rng.integers(-spread, spread, [2, channels, 7, 9]).astype(dtype)
        fan = 1 if kind == "depthwise" else channels
        weights = rng.integers(-9, 10, [outputs, fan, 3, 3]).astype(np.int8)
        bias = rng.integers(-300, 300, outputs)
        graph = Graph()
        attribute = ts.TosaSerializerAttribute()
        settings = [1, 1, 1, 1], [1, 1], [1, 1], False, tosa_model.TYPES[wide]
        if kind == "depthwise":
            attribute.DepthwiseConv2dAttribute(*settings)
            filters = weights.transpose(2, 3, 0, 1)
        else:
            attribute.Conv2dAttribute(*settings)
            filters = weights.transpose(0, 2, 3, 1)
        operands = [
            graph.input(channels_last(codes), dtype),
            graph.constant(np.ascontiguousarray(filters), "int8"),
            graph.constant(bias, wide),
            graph.constant([x[1]], dtype),
            graph.constant([0], "int8"),
        ]
        name = "DEPTHWISE_CONV2D" if kind == "depthwise" else "CONV2D"
        acc = graph.node(name, operands, [2, 7, 9, outputs], wide, attribute)
        scale32 = kind != "int16"
        pair = multiplier(f64(x[0] * w[0] / y[0]), 31 if scale32 else 15)
        expected = graph.run(graph.rescale(acc, [pair], (0, y[1]), dtype, rounding, scale32)).transpose(0, 3, 1, 2)
        unit = (float(np.float32(x[0]) * np.float32(w[0])), 0, "int32")
        ours = run_ours(
            "Conv",
            [(codes, x, False), (weights, w, True), (bias.astype(np.int32), unit, True)],
            [],
            y,
            {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "group": channels // fan},
            {"rounding_mode": rounding, "scale32": str(scale32).lower()},
        )
        check(ours, expected)


@pytest.mark.parametrize("dtype", ["int8", "int16"])
@pytest.mark.parametrize("kernel", [(2, 2), (3, 3), (5, 3)])
def test_average_pool(kernel: tuple[int, int], dtype: str) -> None:
    rng = fresh_rng()
    x = random_grid(rng, dtype, power=True)
    y = (x[0], *random_grid(rng, dtype, power=True)[1:])
    info = np.iinfo(dtype)
    codes = rng.integers(info.min, info.max + 1, [1, 4, 10, 11]).astype(dtype)
    pads = [kernel[0] // 2, kernel[0] // 2, kernel[1] // 2, kernel[1] // 2]
    out = [(size + 2 * (k // 2) - k) + 1 for size, k in zip((10, 11), kernel, strict=True)]
    graph = Graph()
    attribute = ts.TosaSerializerAttribute()
    attribute.AvgPool2dAttribute(list(kernel), [1, 1], pads, ts.DType.INT32)
    operands = [graph.input(channels_last(codes), dtype), graph.constant([x[1]], dtype), graph.constant([y[1]], dtype)]
    expected = graph.run(graph.node("AVG_POOL2D", operands, [1, *out, 4], dtype, attribute)).transpose(0, 3, 1, 2)
    pooled = {"kernel_shape": list(kernel), "pads": [pads[0], pads[2], pads[1], pads[3]], "count_include_pad": 0}
    check(run_ours("AveragePool", [(codes, x, False)], [], y, pooled), expected)


@pytest.mark.parametrize("rounding", ["SINGLE", "DOUBLE"])
@pytest.mark.parametrize("op", ["Add", "Sub", "Mul"])
def test_pairs(op: str, rounding: str) -> None:
    rng = fresh_rng()
    for power in (True, False):
        a, b, y = (random_grid(rng, "int8", power) for _ in range(3))
        left, right = np.meshgrid(*[np.arange(-128, 128).astype(np.int8)] * 2, indexing="ij")
        graph = Graph()
        attribute = ts.TosaSerializerAttribute()
        getattr(attribute, f"{op}Attribute")()
        if op == "Mul":
            ratios = [Fraction(1), Fraction(1), f64(a[0] * b[0] / y[0])]
        else:
            t = 2.0 * max(a[0], b[0])
            ratios = [f64(a[0] / t * 2.0**20), f64(b[0] / t * 2.0**20), f64(t / 2.0**20 / y[0])]
        pairs = [multiplier(r, 31) for r in ratios]
        operands = [
            graph.rescale(graph.input(codes, "int8"), [pair], (grid[1], 0), "int32", rounding)
            for codes, pair, grid in ((left, pairs[0], a), (right, pairs[1], b))
        ]
        if op == "Mul":
            operands.append(graph.constant([0], "int8"))
        total = graph.node(op.upper(), operands, [256, 256], "int32", attribute)
        expected = graph.run(graph.rescale(total, [pairs[2]], (0, y[1]), "int8", rounding))
        ours = run_ours(op, [(left, a, False), (right, b, False)], [], y, parameters={"rounding_mode": rounding})
        check(ours, expected)
