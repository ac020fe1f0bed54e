"""Small TFLite models, one per operator and option: every tensor equals LiteRT's reference kernels, live."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nputwin

pytest.importorskip("ai_edge_litert", reason="ai-edge-litert is not installed")

from ai_edge_litert.interpreter import OpResolverType
from tflite_files import Net, litert

SAME, VALID = 0, 1
NONE, RELU, RELU_N1, RELU6 = 0, 1, 2, 3

RNG = np.random.default_rng(7)
S, Z = 0.05, -3
WIDE_BIAS = "conv int16"  # its bias has 64 bits


def weights(shape: tuple[int, ...], lo: int = -127, hi: int = 128) -> Any:
    return RNG.integers(lo, hi, shape).astype(np.int8)


def image(net: Net, *shape: int, scale: float = S, zero_point: int = Z, dtype: str = "int8") -> int:
    return net.tensor(shape, dtype, scale, zero_point)


def convolution(
    stride: int,
    dilation: int,
    padding: int,
    activation: int,
    size: int = 9,
    channels: int = 4,
    bits: str = "int8",
    group: int = 1,
    kernel: int = 3,
) -> bytes:
    """CONV_2D with a bias and per-channel weights; a SAME window at stride 2 is uneven."""
    net = Net()
    dtype, zero_point = ("int16", 0) if bits == "int16" else ("uint8", 121) if bits == "uint8" else ("int8", Z)
    x = image(net, 1, size, size + 3, channels, zero_point=zero_point, dtype=dtype)
    outputs = 6
    shape = (outputs, kernel, kernel, channels // group)
    if bits == "uint8":
        codes = RNG.integers(0, 256, shape).astype(np.uint8)
        w = net.tensor(shape, "uint8", 0.01, 130, codes)
        scales = [0.01]
    else:
        scales = [0.004 * (i + 1) for i in range(outputs)]
        four = bits == "int4"
        w = net.tensor(
            shape, "int4" if four else "int8", scales, 0, weights(shape, *((-7, 8) if four else (-127, 128)))
        )
    bias_scales = [float(np.float32(S) * np.float32(s)) for s in scales]
    wide = bits == "int16"
    bias = RNG.integers(-2000, 2000, outputs).astype(np.int64 if wide else np.int32)
    b = net.tensor((outputs,), "int64" if wide else "int32", bias_scales, 0, bias)
    reach = (kernel - 1) * dilation + 1

    def out(n: int) -> int:
        return -(-n // stride) if padding == SAME else (n - reach) // stride + 1

    y = net.tensor((1, out(size), out(size + 3), outputs), dtype, 0.09, zero_point and zero_point - 4)
    net.op(
        "CONV_2D", [x, w, b], [y], "Conv2DOptions", padding=padding, strideW=stride, strideH=stride,
        dilationWFactor=dilation, dilationHFactor=dilation, fusedActivationFunction=activation,
    )  # fmt: skip
    return net.file([x], [y])


def depthwise(multiplier: int, stride: int, bias: bool = True) -> bytes:
    net = Net()
    x = image(net, 1, 8, 7, 3)
    outputs = 3 * multiplier
    scales = [0.003 * (i + 1) for i in range(outputs)]
    w = net.tensor((1, 3, 3, outputs), "int8", scales, 0, weights((1, 3, 3, outputs)), axis=3)
    inputs = [x, w]
    if bias:
        bias_scales = [float(np.float32(S) * np.float32(s)) for s in scales]
        codes = RNG.integers(-900, 900, outputs).astype(np.int32)
        inputs.append(net.tensor((outputs,), "int32", bias_scales, 0, codes))
    y = net.tensor((1, -(-8 // stride), -(-7 // stride), outputs), "int8", 0.04, 5)
    net.op(
        "DEPTHWISE_CONV_2D", inputs, [y], "DepthwiseConv2DOptions", padding=SAME, strideW=stride, strideH=stride,
        depthMultiplier=multiplier, fusedActivationFunction=RELU6,
    )  # fmt: skip
    return net.file([x], [y])


def transposed(padding: int, stride: int) -> bytes:
    net = Net()
    x = image(net, 1, 4, 5, 3)
    w = net.tensor((2, 3, 3, 3), "int8", [0.01, 0.02], 0, weights((2, 3, 3, 3)))
    scales = [float(np.float32(S) * np.float32(s)) for s in (0.01, 0.02)]
    b = net.tensor((2,), "int32", scales, 0, np.array([100, -300], np.int32))
    shape = [1, *((n * stride if padding == SAME else (n - 1) * stride + 3) for n in (4, 5)), 2]
    y = net.tensor(tuple(shape), "int8", 0.07, 2)
    net.op(
        "TRANSPOSE_CONV", [net.constant(shape), w, x, b], [y], "TransposeConvOptions", padding=padding, strideW=stride,
        strideH=stride,
    )  # fmt: skip
    return net.file([x], [y])


def fully_connected(shape: tuple[int, ...], keep: bool, activation: int = NONE) -> bytes:
    net = Net()
    x = image(net, *shape)
    depth = shape[-1] if keep else int(np.prod(shape[1:]))
    w = net.tensor((5, depth), "int8", 0.01, 0, weights((5, depth)))
    bias = RNG.integers(-500, 500, 5).astype(np.int32)
    b = net.tensor((5,), "int32", float(np.float32(S) * np.float32(0.01)), 0, bias)
    y = net.tensor((*shape[:-1], 5) if keep else (shape[0], 5), "int8", 0.11, 7)
    net.op(
        "FULLY_CONNECTED", [x, w, b], [y], "FullyConnectedOptions", keepNumDims=keep, fusedActivationFunction=activation
    )
    return net.file([x], [y])


def pool(kind: str, padding: int, activation: int) -> bytes:
    net = Net()
    x = image(net, 1, 7, 8, 3)
    shape = (1, 4, 4, 3) if padding == SAME else (1, 3, 3, 3)
    y = image(net, *shape)
    net.op(
        kind, [x], [y], "Pool2DOptions", padding=padding, strideW=2, strideH=2, filterWidth=3, filterHeight=3,
        fusedActivationFunction=activation,
    )  # fmt: skip
    return net.file([x], [y])


def binary(kind: str, second: tuple[int, ...] | None, options: str, activation: int, dtype: str = "int8") -> bytes:
    """Two images, or an image and a constant that is broadcast, behind a convolution that turns them."""
    net = Net()
    zero = 0 if dtype == "int16" else Z
    x = image(net, 1, 5, 6, 4, zero_point=zero, dtype=dtype)
    inputs = [x]
    if second is None:
        z = image(net, 1, 5, 6, 4, scale=0.08, zero_point=0 if dtype == "int16" else 11, dtype=dtype)
        inputs.append(z)
        operand = z
    else:
        operand = net.tensor(second, dtype, 0.03, zero, RNG.integers(-100, 100, second).astype(dtype))
    y = image(net, 1, 5, 6, 4, scale=0.12 if kind != "MUL" else 0.2, zero_point=zero, dtype=dtype)
    values = {"potScaleInt16": False} if dtype == "int16" and kind != "MUL" else {}
    net.op(kind, [x, operand], [y], options, fusedActivationFunction=activation, **values)
    p = image(net, 1, 5, 6, 4, scale=0.12 if kind != "MUL" else 0.2, zero_point=zero, dtype=dtype)
    net.op("MAX_POOL_2D", [y], [p], "Pool2DOptions", strideW=1, strideH=1, filterWidth=1, filterHeight=1)
    return net.file(inputs, [p])


def unary(
    kind: str,
    scale: float,
    zero_point: int,
    options: str | None = None,
    dtype: str = "int8",
    x_scale: float = S,
    **values: Any,
) -> bytes:
    net = Net()
    x = image(net, 1, 16, 16, 2, scale=x_scale, zero_point=0 if dtype == "int16" else Z, dtype=dtype)
    y = image(net, 1, 16, 16, 2, scale=scale, zero_point=zero_point, dtype=dtype)
    net.op(kind, [x], [y], options, **values)
    return net.file([x], [y])


def prelu() -> bytes:
    net = Net()
    x = image(net, 1, 5, 6, 4)
    slope = net.tensor((1, 1, 4), "int8", 0.004, 3, weights((1, 1, 4)))
    y = image(net, 1, 5, 6, 4, scale=0.06)
    net.op("PRELU", [x, slope], [y])
    p = image(net, 1, 5, 6, 4, scale=0.06)
    net.op("MAX_POOL_2D", [y], [p], "Pool2DOptions", strideW=1, strideH=1, filterWidth=1, filterHeight=1)
    return net.file([x], [p])


def turned(build: Callable[[Net, int], int], size: int = 6, channels: int = 4) -> bytes:
    """What `build` makes of an image that a spatial operator writes."""
    net = Net()
    x = image(net, 1, size, size + 2, channels)
    p = image(net, 1, size, size + 2, channels)
    net.op("MAX_POOL_2D", [x], [p], "Pool2DOptions", strideW=1, strideH=1, filterWidth=1, filterHeight=1)
    return net.file([x], [build(net, p)])


def mean(axes: list[int], keep: bool, shape: tuple[int, ...]) -> Callable[[Net, int], int]:
    def build(net: Net, x: int) -> int:
        y = image(net, *shape, scale=0.03, zero_point=4)
        return net.op("MEAN", [x, net.constant(axes)], [y], "ReducerOptions", keepDims=keep)

    return build


def moved(
    kind: str, shape: tuple[int, ...], *operands: Any, options: str | None = None, **values: Any
) -> Callable[[Net, int], int]:
    """An operator that moves codes, with constant integers."""

    def build(net: Net, x: int) -> int:
        return net.op(kind, [x, *(net.constant(o) for o in operands)], [image(net, *shape)], options, **values)

    return build


def reshape_there_and_back(net: Net, x: int) -> int:
    flat = image(net, 1, 6 * 8 * 4)
    net.op("RESHAPE", [x, net.constant([1, -1])], [flat], "ReshapeOptions", newShape=[1, -1])
    wide = image(net, 1, 8, 6, 4)
    net.op("RESHAPE", [flat, net.constant([1, 8, 6, 4])], [wide], "ReshapeOptions", newShape=[1, 8, 6, 4])
    y = image(net, 1, 4, 3, 4)
    return net.op(
        "MAX_POOL_2D", [wide], [y], "Pool2DOptions", strideW=2, strideH=2, filterWidth=2, filterHeight=2, padding=VALID
    )


def split(net: Net, x: int) -> int:
    parts = [image(net, 1, 6, 8, 2), image(net, 1, 6, 8, 2)]
    net.op("SPLIT", [net.constant(3), x], parts, "SplitOptions", numSplits=2)
    y = image(net, 1, 12, 8, 2)
    return net.op("CONCATENATION", parts[::-1], [y], "ConcatenationOptions", axis=1)


def split_sizes(net: Net, x: int) -> int:
    parts = [image(net, 1, 6, 3, 4), image(net, 1, 6, 5, 4)]
    net.op("SPLIT_V", [x, net.constant([3, -1]), net.constant(2)], parts, "SplitVOptions", numSplits=2)
    y = image(net, 1, 6, 8, 4)
    return net.op("CONCATENATION", parts[::-1], [y], "ConcatenationOptions", axis=-2)


def concat_with_constant(net: Net, x: int) -> int:
    constant = net.tensor((1, 6, 8, 2), "int8", S, Z, weights((1, 6, 8, 2)))
    y = image(net, 1, 6, 8, 6)
    return net.op("CONCATENATION", [x, constant], [y], "ConcatenationOptions", axis=3)


def pad_value(net: Net, x: int) -> int:
    value = net.tensor((1,), "int8", S, Z, np.array([37], np.int8))
    y = image(net, 1, 9, 9, 4)
    return net.op("PADV2", [x, net.constant([[0, 0], [1, 2], [1, 0], [0, 0]]), value], [y])


def pack_and_unpack(net: Net, x: int) -> int:
    rows = [image(net, 6, 8, 4)]
    net.op("UNPACK", [x], rows, "UnpackOptions", num=1, axis=0)
    y = image(net, 6, 2, 8, 4)
    return net.op("PACK", [rows[0], rows[0]], [y], "PackOptions", valuesCount=2, axis=1)


def requantize(net: Net, x: int) -> int:
    y = image(net, 1, 6, 8, 4, scale=0.021, zero_point=17)
    return net.op("QUANTIZE", [x], [y])


def matrices(net: Net, x: int) -> int:
    y = image(net, 1, 6, 8, 8, scale=0.6)
    return net.op("BATCH_MATMUL", [x, x], [y], "BatchMatMulOptions", adjX=False, adjY=True)


def resize(kind: str, options: str, **values: Any) -> Callable[[Net, int], int]:
    return lambda net, x: net.op(kind, [x, net.constant([11, 13])], [image(net, 1, 11, 13, 4)], options, **values)


def near_ratio() -> tuple[float, float]:
    """Two scales whose ratio is a little below 3/4, and 3/4 in float32: ties tell in which type it was taken."""
    for i in range(1, 10_000):
        x = np.float32(0.03) + np.float32(i) * np.spacing(np.float32(0.03))
        y = np.float32(np.float64(x) / 0.75)
        if x / y == np.float32(0.75) and np.float64(x) / np.float64(y) < 0.75:
            return float(x), float(y)
    raise AssertionError("no such scales")


NEAR = near_ratio()

CASES: dict[str, bytes] = {
    "conv same stride 2 relu6": convolution(2, 1, SAME, RELU6),
    "conv same stride 2 even size": convolution(2, 1, SAME, NONE, size=8),
    "conv valid stride 3 relu": convolution(3, 1, VALID, RELU),
    "conv dilated same": convolution(1, 2, SAME, RELU_N1),
    "conv dilated valid": convolution(1, 3, VALID, NONE),
    "conv grouped": convolution(1, 1, SAME, NONE, group=2),
    "conv int4": convolution(1, 1, SAME, RELU, bits="int4"),
    "conv int4 odd": convolution(1, 1, VALID, NONE, bits="int4", channels=3, kernel=1),
    WIDE_BIAS: convolution(2, 1, SAME, RELU, bits="int16"),
    "conv uint8": convolution(2, 1, SAME, RELU6, bits="uint8"),
    "depthwise": depthwise(1, 1),
    "depthwise multiplier 2 stride 2": depthwise(2, 2),
    "depthwise without bias": depthwise(1, 2, bias=False),
    "transposed same": transposed(SAME, 2),
    "transposed valid": transposed(VALID, 2),
    "transposed same stride 3": transposed(SAME, 3),
    "fully connected": fully_connected((3, 7), False, RELU),
    "fully connected image": fully_connected((2, 3, 4, 5), False),
    "fully connected kept": fully_connected((2, 3, 4, 5), True, RELU6),
    "average pool same": pool("AVERAGE_POOL_2D", SAME, RELU6),
    "average pool valid": pool("AVERAGE_POOL_2D", VALID, NONE),
    "max pool same": pool("MAX_POOL_2D", SAME, RELU),
    "add": binary("ADD", None, "AddOptions", RELU),
    "add channels": binary("ADD", (4,), "AddOptions", NONE),
    "add rows": binary("ADD", (6, 1), "AddOptions", RELU6),
    "add int16": binary("ADD", None, "AddOptions", NONE, dtype="int16"),
    "sub": binary("SUB", (1, 5, 1, 4), "SubOptions", RELU),
    "mul": binary("MUL", None, "MulOptions", RELU6),
    "mul scalar": binary("MUL", (1,), "MulOptions", NONE),
    "relu": unary("RELU", 0.04, 1),
    "relu6": unary("RELU6", 6 / 255, -128),
    "relu at a ratio that float32 rounds to 3/4": unary("RELU", NEAR[1], 1, x_scale=NEAR[0]),
    "relu6 at a ratio that float32 rounds to 3/4": unary("RELU6", NEAR[1], -128, x_scale=NEAR[0]),
    "requantize at a ratio that float32 rounds to 3/4": unary("QUANTIZE", NEAR[1], 9, x_scale=NEAR[0]),
    "leaky relu": unary("LEAKY_RELU", 0.045, -9, "LeakyReluOptions", alpha=0.13),
    "logistic": unary("LOGISTIC", 1 / 256, -128),
    "logistic int16": unary("LOGISTIC", 1 / 32768, 0, dtype="int16"),
    "tanh": unary("TANH", 1 / 128, 0),
    "hard swish": unary("HARD_SWISH", 0.04, -70),
    "prelu": prelu(),
    "mean": turned(mean([1, 2], False, (1, 4))),
    "mean kept": turned(mean([1, 2], True, (1, 1, 1, 4))),
    "mean of channels": turned(mean([-1], False, (1, 6, 8))),
    "mean of rows": turned(mean([1], False, (1, 8, 4))),
    "reshape there and back": turned(reshape_there_and_back),
    "pad": turned(moved("PAD", (1, 9, 11, 4), [[0, 0], [1, 2], [3, 0], [0, 0]])),
    "pad value": turned(pad_value),
    "mirror pad": turned(
        moved("MIRROR_PAD", (1, 9, 9, 4), [[0, 0], [1, 2], [1, 0], [0, 0]], options="MirrorPadOptions")
    ),
    "squeeze": turned(moved("SQUEEZE", (6, 8, 4), options="SqueezeOptions", squeezeDims=[0])),
    "expand dims": turned(moved("EXPAND_DIMS", (1, 6, 1, 8, 4), 2)),
    "transpose": turned(moved("TRANSPOSE", (1, 4, 6, 8), [0, 3, 1, 2])),
    "split": turned(split),
    "split sizes": turned(split_sizes),
    "concat with constant": turned(concat_with_constant),
    "slice": turned(moved("SLICE", (1, 3, 6, 2), [0, 1, 2, 1], [-1, 3, 6, 2])),
    "strided slice": turned(
        moved(
            "STRIDED_SLICE",
            (1, 3, 2, 4),
            [0, 1, 0, 0],
            [1, 0, 5, 4],
            [1, 2, 3, 1],
            options="StridedSliceOptions",
            endMask=0b1011,
        )
    ),
    "strided slice single": turned(
        moved(
            "STRIDED_SLICE",
            (1, 8, 4),
            [0, -1, 0, 0],
            [1, 0, 8, 4],
            [1, 1, 1, 1],
            options="StridedSliceOptions",
            shrinkAxisMask=0b10,
        )
    ),
    "strided slice backwards": turned(
        moved(
            "STRIDED_SLICE",
            (1, 6, 8, 4),
            [0, -1, 0, 0],
            [1, 0, 8, 4],
            [1, -1, 1, 1],
            options="StridedSliceOptions",
            beginMask=2,
            endMask=2,
        )
    ),
    "pack and unpack": turned(pack_and_unpack),
    "requantize": turned(requantize),
    "gather": turned(moved("GATHER", (1, 3, 8, 4), [5, 0, 2], options="GatherOptions", axis=1)),
    "space to depth": turned(moved("SPACE_TO_DEPTH", (1, 3, 4, 16), options="SpaceToDepthOptions", blockSize=2)),
    "depth to space": turned(moved("DEPTH_TO_SPACE", (1, 12, 16, 1), options="DepthToSpaceOptions", blockSize=2)),
    "resize": turned(resize("RESIZE_BILINEAR", "ResizeBilinearOptions")),
    "resize half pixels": turned(resize("RESIZE_BILINEAR", "ResizeBilinearOptions", halfPixelCenters=True)),
    "resize corners": turned(resize("RESIZE_BILINEAR", "ResizeBilinearOptions", alignCorners=True)),
    "nearest": turned(resize("RESIZE_NEAREST_NEIGHBOR", "ResizeNearestNeighborOptions")),
    "nearest half pixels": turned(
        resize("RESIZE_NEAREST_NEIGHBOR", "ResizeNearestNeighborOptions", halfPixelCenters=True)
    ),
    "nearest corners": turned(resize("RESIZE_NEAREST_NEIGHBOR", "ResizeNearestNeighborOptions", alignCorners=True)),
    "batch matmul": turned(matrices),
}


def feeds_of(session: nputwin.Session, rng: np.random.Generator) -> dict[str, Any]:
    out = {}
    for port in session.get_inputs():
        if port.dtype == "float32":
            out[port.name] = rng.normal(0, 3, port.shape).astype(np.float32)
        else:
            info = np.iinfo(port.dtype)
            out[port.name] = rng.integers(info.min, info.max + 1, port.shape).astype(port.dtype)
    return out


@pytest.mark.parametrize("name", CASES)
def test_every_tensor_equals_the_reference_kernel(name: str, rng: np.random.Generator) -> None:
    file = CASES[name]
    session = nputwin.Session(file, target="litert_ref")
    for _ in range(3):
        feeds = feeds_of(session, rng)
        expected = litert(file, feeds, OpResolverType.BUILTIN_REF)
        compared = 0
        for tensor in session.dump(feeds).values():
            if tensor.name not in expected:
                continue
            codes = tensor.codes
            assert codes is not None, tensor.name
            assert codes.shape == expected[tensor.name].shape, tensor.name
            assert codes.dtype == expected[tensor.name].dtype, tensor.name
            differing = np.argwhere(codes != expected[tensor.name])
            assert not len(differing), f"{tensor.name}: {len(differing)} of {codes.size}, first at {differing[0]}"
            compared += 1
        assert compared >= 2


def convert(source: Path, target: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "nputwin", "convert", str(source), "-o", str(target)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("name", [name for name in CASES if name != WIDE_BIAS])
def test_converting_to_onnx_keeps_the_integers(name: str, rng: np.random.Generator, tmp_path: Path) -> None:
    source, target = tmp_path / "model.tflite", tmp_path / "model.onnx"
    source.write_bytes(CASES[name])
    session = nputwin.Session(source, target="litert_ref")
    done = convert(source, target)
    assert done.returncode == 0, done.stderr
    again = nputwin.Session(target, target="litert_ref")
    feeds = feeds_of(session, rng)
    for ours, expected in zip(again.run(None, feeds), session.run(None, feeds), strict=True):
        assert np.array_equal(ours, expected)


def test_biases_of_64_bits_have_no_form_in_onnx(tmp_path: Path) -> None:
    source = tmp_path / "model.tflite"
    source.write_bytes(CASES[WIDE_BIAS])
    done = convert(source, tmp_path / "model.onnx")
    assert (done.returncode, "write_bitwidth" in done.stderr) == (3, True), done.stderr
