"""Quantized networks for benchmarks: standard shapes with random weights, made by onnxruntime's static quantizer."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

IMAGE = (3, 224, 224)


class Builder:
    """Nodes and seeded weights of a float network."""

    def __init__(self, seed: int) -> None:
        self.random = np.random.default_rng(seed)
        self.nodes: list[Any] = []
        self.weights: list[Any] = []
        self.count = 0

    def name(self, of: str) -> str:
        """A new name."""
        self.count += 1
        return f"{of}_{self.count}"

    def constant(self, value: np.ndarray) -> str:
        """An initializer."""
        name = self.name("c")
        self.weights.append(numpy_helper.from_array(value, name))
        return name

    def node(self, op: str, *inputs: str, outputs: int = 1, **attributes: Any) -> Any:
        """A node; its output, or a list of them."""
        names = [self.name(op) for _ in range(outputs)]
        self.nodes.append(helper.make_node(op, list(inputs), names, name=self.name("n"), **attributes))
        return names[0] if outputs == 1 else names

    def conv(self, x: str, cin: int, cout: int, kernel: int = 1, stride: int = 1, group: int = 1) -> str:
        """A convolution with bias, padded to keep the size."""
        fan = cin // group * kernel * kernel
        w = self.random.normal(0, np.sqrt(2 / fan), (cout, cin // group, kernel, kernel)).astype(np.float32)
        b = self.random.normal(0, 0.1, cout).astype(np.float32)
        return self.node(
            "Conv",
            x,
            self.constant(w),
            self.constant(b),
            kernel_shape=[kernel, kernel],
            strides=[stride, stride],
            pads=[kernel // 2] * 4,
            group=group,
        )

    def head(self, x: str, channels: int, classes: int = 1000) -> str:
        """Global average and classifier."""
        pooled = self.node("Flatten", self.node("GlobalAveragePool", x))
        w = self.random.normal(0, 0.05, (classes, channels)).astype(np.float32)
        return self.node("Gemm", pooled, self.constant(w), self.constant(np.zeros(classes, np.float32)), transB=1)

    def model(self, output: str, classes: int = 1000) -> onnx.ModelProto:
        """The model from `x` to `output`, of any batch size."""
        self.nodes[-1].output[0] = "y"
        x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", *IMAGE])
        y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", classes])
        graph = helper.make_graph(self.nodes, "network", [x], [y], self.weights)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def mobilenet_v3() -> onnx.ModelProto:
    """MobileNetV3-large: HardSwish and squeeze-excite."""
    b = Builder(3)
    x = b.node("HardSwish", b.conv("x", 3, 16, 3, 2))
    channels = 16
    # kernel, expansion, output, squeeze-excite, HardSwish, stride
    for kernel, wide, out, squeeze, swish, stride in [
        (3, 16, 16, False, False, 1),
        (3, 64, 24, False, False, 2),
        (3, 72, 24, False, False, 1),
        (5, 72, 40, True, False, 2),
        (5, 120, 40, True, False, 1),
        (5, 120, 40, True, False, 1),
        (3, 240, 80, False, True, 2),
        (3, 200, 80, False, True, 1),
        (3, 184, 80, False, True, 1),
        (3, 184, 80, False, True, 1),
        (3, 480, 112, True, True, 1),
        (3, 672, 112, True, True, 1),
        (5, 672, 160, True, True, 2),
        (5, 960, 160, True, True, 1),
        (5, 960, 160, True, True, 1),
    ]:
        activation = "HardSwish" if swish else "Relu"
        h = b.node(activation, b.conv(x, channels, wide)) if wide != channels else x
        h = b.node(activation, b.conv(h, wide, wide, kernel, stride, wide))
        if squeeze:
            narrow = max(8, (wide // 4 + 4) // 8 * 8)
            s = b.node("Relu", b.conv(b.node("GlobalAveragePool", h), wide, narrow))
            s = b.node("HardSigmoid", b.conv(s, narrow, wide), alpha=1 / 6)
            h = b.node("Mul", h, s)
        h = b.conv(h, wide, out)
        x = b.node("Add", x, h) if stride == 1 and channels == out else h
        channels = out
    x = b.node("HardSwish", b.conv(x, channels, 960))
    return b.model(b.head(x, 960))


def shufflenet_v2() -> onnx.ModelProto:
    """ShuffleNetV2 x1.0: Split, Concat and channel shuffle."""
    b = Builder(4)
    x = b.node("Relu", b.conv("x", 3, 24, 3, 2))
    x = b.node("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
    channels, size = 24, 56
    for out, repeat in [(116, 4), (232, 8), (464, 4)]:
        half = out // 2
        for i in range(repeat):
            if i == 0:
                size //= 2
                left = b.node("Relu", b.conv(b.conv(x, channels, channels, 3, 2, channels), channels, half))
                right = b.node("Relu", b.conv(x, channels, half))
                right = b.conv(right, half, half, 3, 2, half)
            else:
                halves = b.constant(np.array([half, half], np.int64))
                left, right = b.node("Split", x, halves, outputs=2, axis=1)
                right = b.node("Relu", b.conv(right, half, half))
                right = b.conv(right, half, half, 3, 1, half)
            right = b.node("Relu", b.conv(right, half, half))
            x = b.node("Concat", left, right, axis=1)
            shape = b.constant(np.array([0, 2, half, size, size], np.int64))
            x = b.node("Transpose", b.node("Reshape", x, shape), perm=[0, 2, 1, 3, 4])
            x = b.node("Reshape", x, b.constant(np.array([0, out, size, size], np.int64)))
            channels = out
    x = b.node("Relu", b.conv(x, channels, 1024))
    return b.model(b.head(x, 1024))


class Images(CalibrationDataReader):  # type: ignore[misc]
    """Seeded noise."""

    def __init__(self, count: int = 4) -> None:
        random = np.random.default_rng(0)
        self.feeds = iter([{"x": random.normal(0, 1, (1, *IMAGE)).astype(np.float32)} for _ in range(count)])

    def get_next(self) -> dict[str, np.ndarray] | None:
        """The next image."""
        return next(self.feeds, None)


def quantized(name: str, folder: Path) -> Path:
    """The file of the quantized network `name` in `folder`, made where it is missing."""
    path = folder / f"{name}.q.onnx"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        model = {"mobilenet_v3": mobilenet_v3, "shufflenet_v2": shufflenet_v2}[name]()
        with tempfile.TemporaryDirectory() as scratch:
            source, target = Path(scratch) / "float.onnx", Path(scratch) / "quantized.onnx"
            onnx.save(model, source)
            quantize_static(
                source,
                target,
                Images(),
                quant_format=QuantFormat.QDQ,
                per_channel=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
            )
            target.replace(path)
    return path


def with_open_batch(path: Path, folder: Path) -> Path:
    """A copy of the model whose batch may have any size."""
    target = folder / f"{path.stem}.batch.onnx"
    if not target.exists():
        folder.mkdir(parents=True, exist_ok=True)
        model = onnx.load(path)
        for port in [*model.graph.input, *model.graph.output]:
            port.type.tensor_type.shape.dim[0].dim_param = "N"
        del model.graph.value_info[:]
        onnx.save(model, target)
    return target


def multiply_accumulates(path: Path) -> int:
    """Products of all convolutions and matrix products for one image."""
    model = onnx.load(path)
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    del model.graph.value_info[:]
    graph = onnx.shape_inference.infer_shapes(model).graph
    shapes = {
        v.name: [d.dim_value for d in v.type.tensor_type.shape.dim]
        for v in [*graph.value_info, *graph.input, *graph.output]
    }
    shapes |= {w.name: list(w.dims) for w in graph.initializer}
    producers = {n.output[0]: n for n in graph.node}

    def weight(name: str) -> list[int]:
        while name not in shapes or not shapes[name]:
            name = producers[name].input[0]
        return shapes[name]

    total = 0
    for node in graph.node:
        if node.op_type == "Conv":
            total += int(np.prod(shapes[node.output[0]]) * np.prod(weight(node.input[1])[1:]))
        elif node.op_type == "Gemm":
            total += int(np.prod(weight(node.input[1])))
    return total
