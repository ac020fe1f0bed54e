"""Every quantized node of the benchmark networks, alone, on operands whose results lie on rounding ties.

Random inputs hit a tie once in millions of elements, so they do not tell one rounding rule from another. Here scales
and operands are chosen so that a tenth of the output elements or more lie within one ulp of a tie.
"""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from conftest import fresh_rng, shared_folder
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from small_models import constant, value

import nputwin

FOLDER = shared_folder("models")
MODELS = sorted(FOLDER.glob("*.onnx")) if FOLDER else []

pytestmark = pytest.mark.skipif(not MODELS, reason="no folder shared/models beside the repository")

# Output steps per unit of the accumulator: all of them put many sums on ties.
RATIOS = np.array([0.5, 0.25, 1.5, 0.75])
# Scale of the output: a power of two, for which every step is exact, and one for which none is.
OUTPUT_SCALES = [np.float32(2.0**-5), np.float32(0.0372)]


def attributes(node: onnx.NodeProto) -> dict:
    return {a.name: helper.get_attribute_value(a) for a in node.attribute}


class Quantized:
    """A quantized node, and the shape of its inputs in the network."""

    def __init__(self, model: onnx.ModelProto, node: onnx.NodeProto, shapes: dict[str, list[int]]) -> None:
        producers = {name: n for n in model.graph.node for name in n.output}
        tensors = {t.name: t for t in model.graph.initializer}
        self.node = node
        self.shapes = [shapes[name] for name in node.input[: 2 if node.op_type == "Add" else 1]]
        self.weight = None
        if node.op_type in ("Conv", "Gemm", "MatMul"):
            self.weight = numpy_helper.to_array(tensors[producers[node.input[1]].input[0]])
        self.bias = len(node.input) > 2


def quantized_nodes(path: Path) -> list[Quantized]:
    model = onnx.shape_inference.infer_shapes(onnx.load(path))
    values = [*model.graph.value_info, *model.graph.input, *model.graph.output]
    shapes = {v.name: [d.dim_value for d in v.type.tensor_type.shape.dim] for v in values}
    shapes |= {t.name: list(t.dims) for t in model.graph.initializer}
    kinds = ("Conv", "Gemm", "MatMul", "Add", "GlobalAveragePool", "AveragePool", "MaxPool")
    return [Quantized(model, node, shapes) for node in model.graph.node if node.op_type in kinds]


def sparse_weight(rng: np.random.Generator, like: np.ndarray) -> np.ndarray:
    """Few small weights per output, so that sums stay within the output's codes."""
    fan_in = like[0].size
    keep = rng.random(like.shape) < min(1.0, 9 / fan_in)
    return (rng.integers(-2, 3, like.shape) * keep).astype(np.int8)


def one_node_model(case: Quantized, rng: np.random.Generator, output_scale: np.float32):
    """The node between quantizers, operands for it, and the scales that it has."""
    node, op = case.node, case.node.op_type
    shapes = [[size if i < 2 else min(size, 14) for i, size in enumerate(shape)] for shape in case.shapes]
    zero = np.uint8(121)
    tensors = [constant("yz", np.uint8(118)), constant("ys", output_scale)]
    names, nodes, feeds, scales = [], [], {}, {}
    for i, shape in enumerate(shapes):
        name = "ab"[i]
        if op == "Add":
            scale, codes = np.float32(RATIOS[i] * output_scale), rng.integers(40, 200, shape)
        elif op == "GlobalAveragePool":
            count = int(np.prod(shape[2:]))
            scale, codes = np.float32(0.5 * output_scale * count), rng.integers(zero - 8, zero + 9, shape)
        elif op in ("MaxPool", "AveragePool"):
            scale, codes = output_scale, rng.integers(0, 256, shape)
        else:
            scale, codes = np.float32(0.031), rng.integers(zero - 9, zero + 10, shape)
        same = op == "MaxPool"
        tensors += [constant(f"{name}s", scale), constant(f"{name}z", np.uint8(118) if same else zero)]
        nodes.append(helper.make_node("DequantizeLinear", [name, f"{name}s", f"{name}z"], [f"{name}_r"]))
        names.append(f"{name}_r")
        feeds[name] = codes.astype(np.uint8)
        scales[name] = (float(scale), int(zero))
    if case.weight is not None:
        weight = sparse_weight(rng, case.weight)
        axis = 0 if op == "Conv" or attributes(node).get("transB") else 1
        channels = weight.shape[axis]
        wide = RATIOS[np.arange(channels) % len(RATIOS)] * float(output_scale) / scales["a"][0]
        weight_scale = wide.astype(np.float32)
        if op != "Conv":
            weight_scale = weight_scale[:1]
        tensors += [constant("w", weight), constant("ws", weight_scale if op == "Conv" else weight_scale[0])]
        tensors.append(constant("wz", np.zeros(channels, np.int8) if op == "Conv" else np.int8(0)))
        nodes.append(helper.make_node("DequantizeLinear", ["w", "ws", "wz"], ["w_r"], axis=0))
        names.append("w_r")
        scales["w"] = weight_scale.astype(np.float64)
        if case.bias:
            bias = rng.integers(-20, 21, channels).astype(np.int32)
            bias_scale = (np.float32(scales["a"][0]) * weight_scale).astype(np.float32)
            scalar = op != "Conv"
            tensors += [constant("bias", bias), constant("bs", bias_scale[0] if scalar else bias_scale)]
            tensors.append(constant("bz", np.int32(0) if scalar else np.zeros(channels, np.int32)))
            nodes.append(helper.make_node("DequantizeLinear", ["bias", "bs", "bz"], ["bias_r"], axis=0))
            names.append("bias_r")
    nodes.append(helper.make_node(op, names, ["y_r"], "node", **attributes(node)))
    nodes.append(helper.make_node("QuantizeLinear", ["y_r", "ys", "yz"], ["y"]))
    inputs = [value(name, codes.shape, TensorProto.UINT8) for name, codes in feeds.items()]
    graph = helper.make_graph(nodes, "g", inputs, [value("y", None, TensorProto.UINT8)], tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return model, feeds


def exact_steps(model: onnx.ModelProto, feeds: dict[str, np.ndarray], output_scale: np.float32) -> np.ndarray:
    """Output steps before rounding, in float64."""
    reference = onnx.ModelProto()
    reference.CopyFrom(model)
    graph = reference.graph
    tensors = {t.name: numpy_helper.to_array(t) for t in graph.initializer}
    values = {**feeds, **tensors}
    nodes, renamed = [], {}
    for node in graph.node:
        if node.op_type == "DequantizeLinear":
            codes, scale, zero = (values[name].astype(np.float64) for name in node.input)
            if np.ndim(scale):
                spread = [-1, *[1] * (codes.ndim - 1)]
                scale, zero = scale.reshape(spread), zero.reshape(spread)
            renamed[node.output[0]] = (codes - zero) * scale
        elif node.op_type != "QuantizeLinear":
            nodes.append(node)
    (node,) = nodes
    operands = [renamed[name] for name in node.input]
    evaluator = ReferenceEvaluator(
        helper.make_model(
            helper.make_graph(
                [node],
                "g",
                [value(n, o.shape, TensorProto.DOUBLE) for n, o in zip(node.input, operands, strict=True)],
                [value("y_r", None, TensorProto.DOUBLE)],
            ),
            opset_imports=[helper.make_opsetid("", 17)],
        )
    )
    (y,) = evaluator.run(None, dict(zip(node.input, operands, strict=True)))
    return y / float(output_scale)


def share_near_ties(steps: np.ndarray) -> float:
    """Share of elements within one ulp of a tie whose code does not saturate."""
    tie = np.floor(steps) + 0.5
    near = np.abs(steps - tie) <= np.spacing(np.abs(tie).astype(np.float32)).astype(np.float64)
    code = steps + 118
    return float(np.mean(near & (code > 0) & (code < 255)))


@pytest.mark.parametrize("output_scale", OUTPUT_SCALES, ids=["power_of_two", "odd_scale"])
@pytest.mark.parametrize("path", MODELS, ids=lambda path: path.stem)
def test_nodes_equal_onnxruntime_on_ties(path: Path, output_scale: np.float32, target: str) -> None:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    rng = fresh_rng()
    cases = quantized_nodes(path)
    assert cases
    for case in cases:
        model, feeds = one_node_model(case, rng, output_scale)
        label = f"{case.node.op_type} {case.node.name} {case.shapes}"
        if case.node.op_type != "MaxPool":
            share = share_near_ties(exact_steps(model, feeds, output_scale))
            assert share >= 0.1, f"{label}: only {share:.1%} of the elements are near a tie"
        peer = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        (expected,) = peer.run(None, feeds)
        (got,) = nputwin.Session(model, target=target).run(None, feeds)
        assert got.dtype == expected.dtype
        differing = np.count_nonzero(got != expected)
        assert not differing, f"{label}: {differing} of {expected.size} elements differ"
