"""The three LiteRT targets against ai-edge-litert, live, one operator at a time, bit for bit.

Unary operators see all codes, binary ones all pairs; sums are small and ratios of scales are powers of two in half of
the cases, so that results lie on rounding ties. Operands and the other scales are drawn afresh in every run: a failure
names the seed, and NPUTWIN_SEED repeats it.

Tensors have a multiple of sixteen elements where the optimized kernels treat the rest of a tensor otherwise.
"""

from __future__ import annotations

import math
import os
import secrets
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import pytest
from one_node import Constant, Grid, one_node, run_codes
from onnx import TensorProto, helper
from small_models import constant, value

import nputwin

pytest.importorskip("ai_edge_litert", reason="ai-edge-litert is not installed")
from ai_edge_litert import schema_py_generated as schema
from one_op import RESOLVERS, Value, one_op, run_op

SEED = int(os.environ.get("NPUTWIN_SEED") or secrets.randbits(32))
VALID, SAME = 1, 0
TIE_RATIOS = (0.5, 0.25, 1.5, 0.75, 0.125)

Generator = np.random.Generator


@dataclass
class Case:
    """One operator in both forms. Feeds are in ONNX's order; `onnx` gives codes for them."""

    label: str
    tflite: bytes
    onnx: onnx.ModelProto
    feeds: list[np.ndarray]
    names: str = "ab"
    options: dict[str, Any] = field(default_factory=dict)


def channels_last(x: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(np.moveaxis(x, 1, -1)) if x.ndim == 4 else x


def channels_first(x: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(np.moveaxis(x, -1, 1)) if x.ndim == 4 else x


def value_of(grid: Grid, shape: tuple[int, ...], data: np.ndarray | None = None) -> Value:
    """A per-tensor operand of a TFLite model, from a shape in ONNX's order."""
    if len(shape) == 4:
        shape = (shape[0], *shape[2:], shape[1])
    return Value(shape, grid.dtype, (grid.scale,), grid.zero, data=data)


def draw_zero(rng: Generator, dtype: str) -> int:
    info = np.iinfo(dtype)
    return 0 if dtype == "int16" else int(rng.integers(info.min + 60, info.max - 59))


def draw_scale(rng: Generator, ties: bool, base: float = 2.0**-5) -> float:
    return base if ties else float(np.float32(base * rng.uniform(0.6, 1.7)))


def grid(rng: Generator, dtype: str, ties: bool, ratio: float = 1.0) -> Grid:
    return Grid(draw_scale(rng, ties) * ratio, draw_zero(rng, dtype), dtype)


def ratio(rng: Generator, ties: bool) -> float:
    return float(rng.choice(TIE_RATIOS)) if ties else float(rng.uniform(0.2, 1.6))


def codes(rng: Generator, g: Grid, shape: tuple[int, ...], reach: int | None = None) -> np.ndarray:
    low, high = (g.low, g.high) if reach is None else (max(g.low, g.zero - reach), min(g.high, g.zero + reach))
    return rng.integers(low, high + 1, shape).astype(g.dtype)


def unary(rng: Generator, dtype: str, ties: bool) -> Iterator[Case]:
    alpha = float(np.float32(rng.choice([0.5, 0.25, 0.1, 0.3])))
    leaky = schema.LeakyReluOptionsT()
    leaky.alpha = alpha
    unit = Grid(1 / 256, int(np.iinfo(dtype).min), dtype)
    symmetric = Grid(1 / 128, 0 if dtype == "int8" else 128, dtype)
    free = grid(rng, dtype, ties, ratio(rng, ties) * 2)
    table: list[tuple[str, str, Grid, Any, dict]] = [
        ("LOGISTIC", "Sigmoid", unit, None, {}),
        ("TANH", "Tanh", symmetric, None, {}),
        ("LEAKY_RELU", "LeakyRelu", free, leaky, {"alpha": alpha}),
        ("HARD_SWISH", "HardSwish", free, schema.HardSwishOptionsT(), {}),
        ("QUANTIZE", "Identity", free, schema.QuantizeOptionsT(), {}),
    ]
    for op, onnx_op, out, options, attributes in table:
        x = grid(rng, dtype, ties)
        shape = (1, 256)
        yield Case(
            f"{op} {dtype} {x} to {out} {attributes}",
            one_op(op, [value_of(x, shape)], value_of(out, shape), options),
            one_node(onnx_op, [(x, shape)], out, attributes=attributes),
            [x.codes().reshape(shape)],
        )


def binary(rng: Generator, dtype: str, ties: bool) -> Iterator[Case]:
    for op, onnx_op, options in (
        ("ADD", "Add", schema.AddOptionsT()),
        ("SUB", "Sub", schema.SubOptionsT()),
        ("MUL", "Mul", schema.MulOptionsT()),
    ):
        out = grid(rng, dtype, ties)
        a = Grid(out.scale * ratio(rng, ties), draw_zero(rng, dtype), dtype)
        b = Grid(out.scale * ratio(rng, ties), draw_zero(rng, dtype), dtype)
        if op == "MUL":
            a = Grid(2.0**-4 * ratio(rng, ties), a.zero, dtype)
        shape = (256, 256)
        every = a.codes()
        yield Case(
            f"{op} {dtype} {a} {b} to {out}",
            one_op(op, [value_of(a, shape), value_of(b, shape)], value_of(out, shape), options),
            one_node(onnx_op, [(a, shape), (b, shape)], out),
            [np.repeat(every[:, None], 256, 1), np.repeat(every[None, :], 256, 0)],
        )


def convolutions(rng: Generator, dtype: str, ties: bool) -> Iterator[Case]:
    for kind in ("CONV_2D", "DEPTHWISE_CONV_2D"):
        for stride, padding in ((1, SAME), (2, VALID), (1, VALID)):
            channels = int(rng.integers(2, 21))
            outputs = channels if kind == "DEPTHWISE_CONV_2D" else int(rng.integers(1, 21))
            x, out = grid(rng, dtype, ties), grid(rng, dtype, ties)
            per_channel = dtype != "uint8"
            w_type = "uint8" if dtype == "uint8" else "int8"
            wide = [out.scale / x.scale * ratio(rng, ties) for _ in range(outputs if per_channel else 1)]
            scales = tuple(float(np.float32(s)) for s in wide)
            w = Grid(scales[0], 0 if per_channel else draw_zero(rng, w_type), w_type)
            inner = 1 if kind == "DEPTHWISE_CONV_2D" else channels
            weight = w.zero + rng.integers(-2, 3, (outputs, inner, 3, 3)) * (rng.random((outputs, inner, 3, 3)) < 0.3)
            bias = rng.integers(-20, 21, outputs).astype(np.int32)
            bias_scales = tuple(float(np.float32(np.float32(x.scale) * np.float32(s))) for s in scales)
            shape = (int(rng.integers(1, 3)), channels, 8, 9)
            size = [math.ceil(n / stride) if padding == SAME else math.ceil((n - 2) / stride) for n in shape[2:]]
            depthwise = kind == "DEPTHWISE_CONV_2D"
            options = schema.DepthwiseConv2DOptionsT() if depthwise else schema.Conv2DOptionsT()
            options.strideW = options.strideH = stride
            options.padding = padding
            if depthwise:
                options.depthMultiplier = 1
            stored = np.moveaxis(weight, (0, 1), (3, 0)) if depthwise else np.moveaxis(weight, 1, -1)
            model = one_op(
                kind,
                [
                    value_of(x, shape),
                    Value(
                        stored.shape, w_type, scales, w.zero, axis=3 if depthwise and per_channel else 0, data=stored
                    ),
                    Value((outputs,), "int32", bias_scales, data=bias),
                ],
                value_of(out, (shape[0], outputs, *size)),
                options,
            )
            pads = [1] * 4 if padding == SAME else [0] * 4
            attributes = {"pads": pads, "strides": [stride] * 2, "group": channels if depthwise else 1}
            operands = [
                (x, shape),
                Constant(weight, w, scales if per_channel else None),
                Constant(bias, Grid(bias_scales[0], 0, "int32"), bias_scales if per_channel else None),
            ]
            yield Case(
                f"{kind} {dtype} {shape} stride {stride} padding {padding} {x} {w} to {out}",
                model,
                one_node("Conv", operands, out, attributes=attributes),
                [codes(rng, x, shape, reach=9)],
            )


def dense(rng: Generator, dtype: str, ties: bool) -> Iterator[Case]:
    depth, outputs, batch = int(rng.integers(3, 40)), int(rng.integers(1, 24)), int(rng.integers(1, 9))
    x, out = grid(rng, dtype, ties), grid(rng, dtype, ties)
    w_type = "uint8" if dtype == "uint8" else "int8"
    w = Grid(float(np.float32(out.scale / x.scale * ratio(rng, ties))), draw_zero(rng, w_type), w_type)
    if dtype == "int8":
        w = Grid(w.scale, 0, w_type)
    weight = w.zero + rng.integers(-2, 3, (outputs, depth))
    bias = rng.integers(-20, 21, outputs).astype(np.int32)
    bias_scale = float(np.float32(x.scale) * np.float32(w.scale))
    model = one_op(
        "FULLY_CONNECTED",
        [
            Value((batch, depth), dtype, (x.scale,), x.zero),
            Value((outputs, depth), w_type, (w.scale,), w.zero, data=weight),
            Value((outputs,), "int32", (bias_scale,), data=bias),
        ],
        Value((batch, outputs), dtype, (out.scale,), out.zero),
        schema.FullyConnectedOptionsT(),
    )
    operands = [(x, (batch, depth)), Constant(weight, w), Constant(bias, Grid(bias_scale, 0, "int32"))]
    yield Case(
        f"FULLY_CONNECTED {dtype} {batch}x{depth}x{outputs} {x} {w} to {out}",
        model,
        one_node("Gemm", operands, out, attributes={"transB": 1}),
        [codes(rng, x, (batch, depth), reach=9)],
    )


def pools(rng: Generator, dtype: str, ties: bool) -> Iterator[Case]:
    for op, onnx_op in (("AVERAGE_POOL_2D", "AveragePool"), ("MAX_POOL_2D", "MaxPool")):
        for padding in (SAME, VALID):
            x = grid(rng, dtype, ties)
            channels = int(rng.integers(1, 40))
            shape = (1, channels, 8, 10)
            options = schema.Pool2DOptionsT()
            options.filterHeight = options.filterWidth = 3
            options.strideH = options.strideW = 1
            options.padding = padding
            size = [n if padding == SAME else n - 2 for n in shape[2:]]
            attributes = {"kernel_shape": [3, 3], "pads": [1] * 4 if padding == SAME else [0] * 4}
            yield Case(
                f"{op} {dtype} {shape} padding {padding} {x}",
                one_op(op, [value_of(x, shape)], value_of(x, (1, channels, *size)), options),
                one_node(onnx_op, [(x, shape)], x, attributes=attributes),
                [codes(rng, x, shape)],
            )


def mean(rng: Generator, dtype: str, ties: bool) -> Iterator[Case]:
    for same in (True, False):
        x = grid(rng, dtype, ties)
        shape = (1, int(rng.integers(1, 40)), int(rng.integers(2, 9)), int(rng.integers(2, 9)))
        out = x if same else grid(rng, dtype, ties, ratio(rng, ties))
        options = schema.ReducerOptionsT()
        options.keepDims = True
        axes = Value((2,), "int32", data=np.array([1, 2]))
        model = one_op("MEAN", [value_of(x, shape), axes], value_of(out, (*shape[:2], 1, 1)), options)
        operands = [(x, shape), Constant(np.array([2, 3], np.int64))]
        yield Case(
            f"MEAN {dtype} {shape} {x} to {out}",
            model,
            one_node("ReduceMean", operands, out, attributes={"keepdims": 1}),
            [codes(rng, x, shape)],
        )


def softmax(rng: Generator, dtype: str, ties: bool) -> Iterator[Case]:
    x = grid(rng, dtype, ties, float(rng.choice([0.5, 1.0, 4.0])))
    out = Grid(1 / 256, int(np.iinfo(dtype).min), dtype)
    shape = (64, int(rng.integers(2, 50)))
    options = schema.SoftmaxOptionsT()
    options.beta = 1.0
    yield Case(
        f"SOFTMAX {dtype} {shape} {x}",
        one_op("SOFTMAX", [value_of(x, shape)], value_of(out, shape), options),
        one_node("Softmax", [(x, shape)], out, attributes={"axis": -1}),
        [codes(rng, x, shape, reach=int(rng.choice([12, 60, 255])))],
    )


def resize(rng: Generator, dtype: str, ties: bool) -> Iterator[Case]:
    for mode in ("half_pixel", "align_corners", "asymmetric"):
        x = grid(rng, dtype, ties)
        shape = (1, int(rng.integers(1, 9)), int(rng.integers(2, 9)), int(rng.integers(2, 9)))
        size = [2 * n for n in shape[2:]] if ties else [int(rng.integers(2, 20)), int(rng.integers(2, 20))]
        options = schema.ResizeBilinearOptionsT()
        options.alignCorners = mode == "align_corners"
        options.halfPixelCenters = mode == "half_pixel"
        sizes = Value((2,), "int32", data=np.array(size))
        out_shape = (*shape[:2], *size)
        model = one_op("RESIZE_BILINEAR", [value_of(x, shape), sizes], value_of(x, out_shape), options)
        operands = [(x, shape), None, None, Constant(np.array(out_shape, np.int64))]
        attributes = {"mode": "linear", "coordinate_transformation_mode": mode}
        yield Case(
            f"RESIZE_BILINEAR {dtype} {mode} {shape} to {out_shape} {x}",
            model,
            one_node("Resize", operands, x, names="abcd", attributes=attributes),
            [codes(rng, x, shape)],
        )


def concat(rng: Generator, dtype: str, ties: bool) -> Iterator[Case]:
    out = grid(rng, dtype, ties)
    others = [out if dtype == "int8" else grid(rng, dtype, ties, ratio(rng, ties)) for _ in range(2)]
    options = schema.ConcatenationOptionsT()
    options.axis = 1
    shape = (4, 64)
    model = one_op("CONCATENATION", [value_of(g, shape) for g in others], value_of(out, (4, 128)), options)
    yield Case(
        f"CONCATENATION {dtype} {others} to {out}",
        model,
        one_node("Concat", [(g, shape) for g in others], out, attributes={"axis": 1}),
        [g.codes().reshape(shape) for g in others],
    )


def quantizers(rng: Generator, dtype: str, ties: bool) -> Iterator[Case]:
    g = grid(rng, dtype, ties)
    scale, zero = constant("s", np.float32(g.scale)), constant("z", np.array(g.zero, dtype))
    reals = (np.arange(-600, 680) / 4 * g.scale).astype(np.float32).reshape(1, -1)
    if not ties:
        reals = (reals * (1 + rng.uniform(-1e-6, 1e-6, reals.shape))).astype(np.float32)
    for op, onnx_op, feed in (
        ("QUANTIZE", "QuantizeLinear", reals),
        ("DEQUANTIZE", "DequantizeLinear", g.codes()[None]),
    ):
        to_codes = op == "QUANTIZE"
        real, coded = Value(feed.shape, "float32"), value_of(g, feed.shape)
        options = schema.QuantizeOptionsT() if to_codes else schema.DequantizeOptionsT()
        kinds = [TensorProto.FLOAT, helper.np_dtype_to_tensor_dtype(np.dtype(dtype))]
        ports = kinds if to_codes else kinds[::-1]
        graph = helper.make_graph(
            [helper.make_node(onnx_op, ["a", "s", "z"], ["y"])],
            "g",
            [value("a", feed.shape, ports[0])],
            [value("y", feed.shape, ports[1])],
            [scale, zero],
        )
        yield Case(
            f"{op} {g}",
            one_op(op, [real if to_codes else coded], coded if to_codes else real, options),
            helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10),
            [feed],
            options={"plain": True},
        )


GENERATORS = [unary, binary, convolutions, dense, pools, mean, softmax, resize, concat, quantizers]


def ours(case: Case, target: str) -> np.ndarray:
    feeds = dict(zip(case.names, case.feeds, strict=False))
    if case.options.get("plain"):
        return nputwin.Session(case.onnx, target=target, threads=1).run(None, feeds)[0]
    return run_codes(case.onnx, feeds, target=target)


@pytest.mark.parametrize("dtype", ["int8", "uint8"])
@pytest.mark.parametrize("generator", GENERATORS, ids=lambda g: g.__name__)
@pytest.mark.parametrize("target", RESOLVERS)
def test_operators_equal_litert(target: str, generator: Any, dtype: str) -> None:
    rng = np.random.default_rng([SEED, GENERATORS.index(generator), len(dtype)])
    faults = []
    for ties in (True, False, True, False):
        for case in generator(rng, dtype, ties):
            theirs = channels_first(run_op(case.tflite, [channels_last(x) for x in case.feeds], target))
            computed = ours(case, target)
            assert computed.shape == theirs.shape, case.label
            differing = np.flatnonzero(computed != theirs)
            if differing.size:
                i = differing[0]
                faults.append(
                    f"{case.label}: {differing.size} of {theirs.size} differ, element {i}: "
                    f"{computed.flat[i]}, LiteRT {theirs.flat[i]}"
                )
    assert not faults, f"NPUTWIN_SEED={SEED}\n" + "\n".join(faults)
