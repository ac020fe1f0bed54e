"""Models that tests build themselves."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


def model(nodes, inputs, outputs, initializers=(), opset=17) -> onnx.ModelProto:
    graph = helper.make_graph(nodes, "g", inputs, outputs, list(initializers))
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    onnx.checker.check_model(proto)
    return proto


def value(name, shape, dtype=TensorProto.FLOAT):
    return helper.make_tensor_value_info(name, dtype, shape)


def constant(name, array):
    return numpy_helper.from_array(np.asarray(array), name)


def network() -> onnx.ModelProto:
    """Conv, Relu, Conv, Add, pool, Gemm in float, with a dynamic batch."""
    rng = np.random.default_rng(1)
    weights = {
        "w1": rng.standard_normal((8, 3, 3, 3)),
        "b1": rng.standard_normal(8),
        "w2": rng.standard_normal((8, 8, 3, 3)),
        "b2": rng.standard_normal(8),
        "w3": rng.standard_normal((5, 8)),
        "b3": rng.standard_normal(5),
    }
    nodes = [
        helper.make_node("Conv", ["x", "w1", "b1"], ["c1"], "conv1", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c1"], ["r1"], "relu1"),
        helper.make_node("Conv", ["r1", "w2", "b2"], ["c2"], "conv2", pads=[1, 1, 1, 1]),
        helper.make_node("Add", ["c2", "r1"], ["a"], "add"),
        helper.make_node("GlobalAveragePool", ["a"], ["p"], "pool"),
        helper.make_node("Flatten", ["p"], ["f"], "flatten"),
        helper.make_node("Gemm", ["f", "w3", "b3"], ["y"], "gemm", transB=1),
    ]
    tensors = [constant(name, array.astype(np.float32)) for name, array in weights.items()]
    return model(nodes, [value("x", ["batch", 3, 8, 8])], [value("y", ["batch", 5])], tensors)


def qdq_conv() -> onnx.ModelProto:
    """One Conv between quantizers, float at both ends."""
    rng = np.random.default_rng(2)
    tensors = [
        constant("xs", np.float32(0.02)),
        constant("xz", np.uint8(120)),
        constant("ws", np.float32([0.01, 0.02])),
        constant("wz", np.int8([0, 0])),
        constant("ys", np.float32(0.05)),
        constant("yz", np.uint8(100)),
        constant("w", rng.integers(-127, 128, (2, 3, 3, 3)).astype(np.int8)),
    ]
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "xs", "xz"], ["x_q"]),
        helper.make_node("DequantizeLinear", ["x_q", "xs", "xz"], ["x_dq"]),
        helper.make_node("DequantizeLinear", ["w", "ws", "wz"], ["w_dq"], axis=0),
        helper.make_node("Conv", ["x_dq", "w_dq"], ["c"], "conv"),
        helper.make_node("QuantizeLinear", ["c", "ys", "yz"], ["c_q"]),
        helper.make_node("DequantizeLinear", ["c_q", "ys", "yz"], ["y"]),
    ]
    return model(nodes, [value("x", ["n", 3, 6, 6])], [value("y", ["n", 2, 4, 4])], tensors)
