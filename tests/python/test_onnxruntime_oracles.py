"""`onnxruntime_cpu` against onnxruntime itself, live, on all codes of QLinear operators."""

import itertools

import numpy as np
import onnx
import onnxruntime
import pytest
from one_node import Grid
from onnx import TensorProto, helper
from small_models import constant, value

import nputwin

DTYPES = {"uint8": TensorProto.UINT8, "int8": TensorProto.INT8}


def qlinear(op: str, operands: list[tuple[Grid, list[int]]], y: Grid, attributes: dict) -> onnx.ModelProto:
    """One operator on codes; QLinearConcat takes the encoding of its output first."""
    tensors, triples, inputs = [], [], []
    for name, (grid, shape) in zip("abc", operands, strict=False):
        tensors += [
            constant(f"{name}_s", np.float32(grid.scale)),
            constant(f"{name}_z", np.array(grid.zero, grid.dtype)),
        ]
        triples += [name, f"{name}_s", f"{name}_z"]
        inputs.append(value(name, shape, DTYPES[grid.dtype]))
    tensors += [constant("y_s", np.float32(y.scale)), constant("y_z", np.array(y.zero, y.dtype))]
    read = ["y_s", "y_z", *triples] if op == "QLinearConcat" else [*triples, "y_s", "y_z"]
    node = helper.make_node(op, read, ["y"], "node", domain="com.microsoft", **attributes)
    graph = helper.make_graph([node], "g", inputs, [value("y", None, DTYPES[y.dtype])], tensors)
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def compare(model: onnx.ModelProto, feeds: dict[str, np.ndarray], target: str) -> None:
    peer = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (expected,) = peer.run(None, feeds)
    session = nputwin.Session(model, target=target, threads=1)
    shapes = [list(feeds[port.name].shape) for port in session.get_inputs()]
    assert all(node.mode != "float" for node in session.report(shapes).nodes)
    (got,) = session.run_quantized(None, feeds)
    np.testing.assert_array_equal(got, expected)


SCALES = [2**-5, 0.0173, 0.11, 0.5]
ZEROS = {"uint8": [0, 77, 128, 255], "int8": [-128, -5, 0, 127]}


def grids(dtype: str) -> list[Grid]:
    return [Grid(scale, zero, dtype) for scale, zero in itertools.product(SCALES, ZEROS[dtype])]


def unary_pairs(dtype: str) -> list[tuple[Grid, Grid]]:
    """Every input encoding with every output encoding of one type."""
    return list(itertools.product(grids(dtype), repeat=2))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("op", ["QLinearSigmoid", "QLinearLeakyRelu"])
def test_tables(op: str, dtype: str, target: str) -> None:
    outputs = [Grid(1 / 256, ZEROS[dtype][0], dtype), Grid(1 / 255, ZEROS[dtype][0], dtype)]
    pairs = [*unary_pairs(dtype)[::3], *itertools.product(grids(dtype), outputs)]
    for i, (x, y) in enumerate(pairs):
        attributes = {"alpha": [0.01, 0.25, 0.1, 1.5, -0.5][i % 5]} if op == "QLinearLeakyRelu" else {}
        compare(qlinear(op, [(x, [256])], y, attributes), {"a": x.codes()}, target)


@pytest.mark.parametrize("dtype", DTYPES)
def test_requantize_in_concat(dtype: str, target: str) -> None:
    for x, y in unary_pairs(dtype):
        other = Grid(0.0371, ZEROS[dtype][1], dtype)
        model = qlinear("QLinearConcat", [(x, [256]), (other, [256]), (y, [256])], y, {"axis": 0})
        compare(model, dict.fromkeys("abc", x.codes()), target)


def pool_pairs(dtype: str) -> list[tuple[Grid, Grid]]:
    zeros = ZEROS[dtype]
    near = [Grid(0.5, zeros[1], dtype), Grid(0.25, zeros[2], dtype), Grid(0.75, zeros[0], dtype)]
    return [*itertools.product(near, repeat=2), *unary_pairs(dtype)[::17]]


@pytest.mark.parametrize("include", [0, 1])
@pytest.mark.parametrize("kernel", [[2, 2], [3, 3], [1, 5], [4, 2]], ids=str)
@pytest.mark.parametrize("dtype", DTYPES)
def test_average_pool(dtype: str, kernel: list[int], include: int, target: str, rng: np.random.Generator) -> None:
    pads = [kernel[0] // 2, kernel[1] // 2] * 2
    for x, y in pool_pairs(dtype):
        codes = rng.integers(x.low, x.high + 1, (1, 5, 17, 19)).astype(dtype)
        attributes = {"kernel_shape": kernel, "pads": pads, "count_include_pad": include, "strides": [1, 2]}
        compare(qlinear("QLinearAveragePool", [(x, list(codes.shape))], y, attributes), {"a": codes}, target)


@pytest.mark.parametrize("size", [[1, 1], [1, 2], [3, 2], [7, 7]], ids=str)
@pytest.mark.parametrize("dtype", DTYPES)
def test_global_average_pool(dtype: str, size: list[int], target: str, rng: np.random.Generator) -> None:
    for x, y in pool_pairs(dtype):
        codes = rng.integers(x.low, x.high + 1, (3, 70, *size)).astype(dtype)
        compare(qlinear("QLinearGlobalAveragePool", [(x, list(codes.shape))], y, {}), {"a": codes}, target)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("scale", [0.02, 0.11, 0.5])
def test_softmax_of_all_pairs(scale: float, dtype: str, target: str) -> None:
    """A row per pair of codes."""
    x = Grid(scale, ZEROS[dtype][1], dtype)
    rows = np.stack(np.meshgrid(x.codes(), x.codes()), -1).reshape(-1, 2)
    for top in (1 / 256, 1 / 255):
        y = Grid(top, x.low, dtype)
        compare(qlinear("QLinearSoftmax", [(x, [65536, 2])], y, {"axis": 1, "opset": 13}), {"a": rows}, target)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("length", [1, 3, 10, 257, 1000])
def test_softmax_of_rows(length: int, dtype: str, target: str, rng: np.random.Generator) -> None:
    for x in grids(dtype):
        codes = rng.integers(x.low, x.high + 1, (20, length)).astype(dtype)
        codes[10:] = np.clip(codes[10:], x.high - 9, x.high)
        y = Grid(1 / 256, x.low, dtype)
        compare(qlinear("QLinearSoftmax", [(x, [20, length])], y, {"axis": 1, "opset": 13}), {"a": codes}, target)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("op", ["QLinearAdd", "QLinearMul"])
def test_all_pairs(op: str, dtype: str, target: str) -> None:
    for a, b, y in zip(grids(dtype), grids(dtype)[::-1], grids(dtype)[5:] + grids(dtype)[:5], strict=True):
        left, right = np.repeat(a.codes(), 256), np.tile(b.codes(), 256)
        compare(qlinear(op, [(a, [65536]), (b, [65536])], y, {}), {"a": left, "b": right}, target)
