"""Writes random cases whose outputs onnxruntime computed, as onnx_node_cases.py does (same test, same variable).

    python tests/onnxruntime_cases.py /tmp/onnxruntime_cases.jsonl [seed]

They cover old operator sets and combinations of attributes that the node tests of the `onnx` package leave out.
"""

import collections
import json
import random
import sys

import numpy as np
import onnx
import onnxruntime
from onnx import helper, numpy_helper
from onnx_node_cases import attribute, tensor

onnxruntime.set_default_logger_severity(4)


def floats(*shape):
    """Random normal float32 values."""
    return np.random.standard_normal(shape).astype(np.float32)


def ints(*values):
    """An int64 list."""
    return np.array(values, np.int64)


def spatial(rank):
    """Random window attributes of a rank."""

    def pick(low, high):
        return [random.randint(low, high) for _ in range(rank)]

    attributes = {"strides": pick(1, 3), "dilations": pick(1, 2)}
    match random.randrange(4):
        case 0:
            attributes["auto_pad"] = random.choice(["SAME_UPPER", "SAME_LOWER", "VALID"])
            attributes["dilations"] = [1] * rank
        case 1 | 2:
            attributes["pads"] = pick(0, 1) + pick(0, 1)
    return attributes, pick(2, 3), [random.randint(6, 9) for _ in range(rank)]


def conv():
    rank, group = random.choice([1, 2, 2, 3]), random.choice([1, 1, 2, 4])
    attributes, kernel, size = spatial(rank)
    c, m = 4, 4 * random.randint(1, 2)
    inputs = [floats(2, c, *size), floats(m, c // group, *kernel)] + ([floats(m)] if random.random() < 0.5 else [])
    return 13, "Conv", inputs, {"group": group, **attributes}


def conv_transpose():
    rank, group = random.choice([1, 2, 2]), random.choice([1, 2])
    attributes, kernel, size = spatial(rank)
    attributes["dilations"] = [1] * rank if "auto_pad" in attributes else attributes["dilations"]
    if random.random() < 0.4:
        attributes["output_padding"] = [random.randrange(s) for s in attributes["strides"]]
    elif random.random() < 0.3:
        attributes.pop("pads", None)
        attributes["output_shape"] = [
            s * t + random.randint(0, 1) for s, t in zip(size, attributes["strides"], strict=False)
        ]
    inputs = [floats(2, 4, *size), floats(4, 3, *kernel)] + ([floats(3 * group)] if random.random() < 0.5 else [])
    return 13, "ConvTranspose", inputs, {"group": group, **attributes}


def pool():
    rank = random.choice([1, 2, 2, 3])
    attributes, kernel, size = spatial(rank)
    if random.random() < 0.5:
        del attributes["dilations"]
        attributes |= {"count_include_pad": random.randrange(2), "ceil_mode": random.randrange(2)}
        return random.choice([10, 13]), "AveragePool", [floats(1, 3, *size)], {"kernel_shape": kernel, **attributes}
    attributes["ceil_mode"] = random.randrange(2)
    x = floats(1, 3, *size) if random.random() < 0.6 else np.random.randint(-128, 128, (1, 3, *size)).astype(np.int8)
    return random.choice([12, 13]), "MaxPool", [x], {"kernel_shape": kernel, **attributes}


def resize():
    opset = random.choice([10, 11, 13, 18, 19])
    mode = random.choice(["nearest", "linear"] if opset == 10 else ["nearest", "linear", "cubic"])
    size = [random.randint(2, 9), random.randint(2, 9)]
    x = floats(1, 2, *size)
    scales = np.array([1, 1, *(random.choice([0.5, 0.6, 0.75, 1, 1.5, 1.7, 2, 3, 2.5]) for _ in size)], np.float32)
    if opset == 10:
        return 10, "Resize", [x, scales], {"mode": mode}
    modes = ["half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric"]
    attributes = {
        "mode": mode,
        "coordinate_transformation_mode": random.choice(modes + (["half_pixel_symmetric"] if opset >= 19 else [])),
    }
    if mode == "nearest":
        # Coordinates of the symmetric mode fall on ties, where the last bit of its offset decides.
        if attributes["coordinate_transformation_mode"] == "half_pixel_symmetric":
            attributes["coordinate_transformation_mode"] = "half_pixel"
        attributes["nearest_mode"] = random.choice(["round_prefer_floor", "round_prefer_ceil", "floor", "ceil"])
    if mode == "cubic":
        attributes |= {"cubic_coeff_a": random.choice([-0.5, -0.75]), "exclude_outside": random.randrange(2)}
    empty = np.zeros(0, np.float32)
    if random.random() < 0.5:
        return opset, "Resize", [x, empty, scales], attributes
    return opset, "Resize", [x, empty, empty, ints(1, 2, *(random.randint(1, 14) for _ in size))], attributes


def upsample():
    scales = [1.0, 1.0, random.choice([1.0, 1.5, 2.0, 2.7]), random.choice([1.0, 2.0, 3.0])]
    mode = random.choice(["nearest", "linear"])
    if random.random() < 0.5:
        return 8, "Upsample", [floats(1, 2, 3, 4)], {"mode": mode, "scales": scales}
    return 9, "Upsample", [floats(1, 2, 3, 4), np.array(scales, np.float32)], {"mode": mode}


def axes_op():
    axes = sorted(random.sample(range(-3, 0), random.randint(1, 2)))
    op = random.choice(
        ["ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceL2", "ReduceLogSumExp"]
    )
    x, keep = floats(3, 4, 5), {"keepdims": random.randrange(2)}
    if random.random() < 0.5:
        return 11, op, [x], {"axes": axes, **keep}
    return 18, op, [x, ints(*axes)], keep


def movement():
    x = floats(3, 4, 5)
    return random.choice(
        [
            (1, "Slice", [x], {"starts": [-3, 1], "ends": [99, -1], "axes": [-1, 0]}),
            (13, "Slice", [x, ints(4, -9), ints(-99, 9), ints(2, -2), ints(-2, 3)], {}),
            (11, "Squeeze", [floats(1, 3, 1)], {"axes": [-1]}),
            (11, "Unsqueeze", [x], {"axes": [-1, 1]}),
            (11, "Split", [x], {"axis": 1, "split": [1, 3]}),
            (18, "Split", [x], {"axis": 2, "num_outputs": 3}),
            (10, "Pad", [x], {"pads": [1, 0, 2, 0, 3, 1], "mode": "reflect"}),
            (10, "Pad", [x], {"pads": [1, -1, 2, 0, 3, 1], "value": 1.5}),
            (
                19,
                "Pad",
                [x, ints(1, 2, 0, 3), np.float32(7), ints(-1, 0)],
                {"mode": random.choice(["constant", "edge", "wrap"])},
            ),
            (9, "Flatten", [x], {"axis": random.randint(0, 3)}),
            (13, "Tile", [x, ints(2, 1, 3)], {}),
            (13, "DepthToSpace", [floats(2, 12, 3, 2)], {"blocksize": 2, "mode": random.choice(["DCR", "CRD"])}),
            (13, "SpaceToDepth", [floats(2, 3, 4, 6)], {"blocksize": 2}),
            (13, "Gather", [x, np.array([[0, -1], [1, 1]])], {"axis": random.randint(-3, 2)}),
            (13, "Transpose", [x], {"perm": random.sample(range(3), 3)}),
            (14, "Reshape", [x, ints(0, -1, 2)], {}),
        ]
    )


def numbers():
    x = floats(2, 3, 4)
    return random.choice(
        [
            (6, "Clip", [x], {"min": -0.5, "max": 0.25}),
            (13, "Clip", [x, np.float32(0.5), np.float32(-0.5)], {}),
            (11, "Softmax", [x], {"axis": random.randint(0, 2)}),
            (11, "LogSoftmax", [x], {"axis": random.randint(0, 2)}),
            (13, "Softmax", [x * 20], {"axis": random.randint(-3, 2)}),
            (
                13,
                "Gemm",
                [floats(4, 3), floats(5, 4), floats(5)],
                {"transA": 1, "transB": 1, "alpha": 0.5, "beta": 2.0},
            ),
            (13, "Gemm", [floats(3, 4), floats(4, 5), floats(3, 1)], {"beta": 0.3}),
            (13, "MatMul", [floats(2, 1, 3, 4), floats(5, 4, 6)], {}),
            (13, "MatMul", [floats(4), floats(2, 4, 3)], {}),
            (
                9,
                "BatchNormalization",
                [floats(2, 3, 4), floats(3), floats(3), floats(3), floats(3) ** 2],
                {"epsilon": 1e-3},
            ),
            (13, "InstanceNormalization", [floats(2, 3, 4, 2), floats(3), floats(3)], {}),
            (17, "LayerNormalization", [x, floats(4), floats(4)], {"epsilon": 1e-6}),
            (17, "LayerNormalization", [x, floats(3, 4)], {"axis": 1}),
            (20, "Gelu", [x * 3], {"approximate": random.choice(["none", "tanh"])}),
            (13, "Erf", [x], {}),
            (14, "HardSwish", [x * 3], {}),
            (13, "HardSigmoid", [x * 3], {"alpha": 0.3}),
            (13, "Sigmoid", [x * 9], {}),
            (13, "Tanh", [x], {}),
            (13, "Exp", [x], {}),
            (13, "Elu", [x], {"alpha": 0.7}),
            (13, "Selu", [x], {}),
            (13, "Softplus", [x * 9], {}),
            (13, "Pow", [np.abs(x), floats(4)], {}),
            (13, "Pow", [x, np.float32(2)], {}),
            (13, "PRelu", [x, floats(3, 1)], {}),
            (13, "Mean", [x, floats(4)], {}),
            (12, "ArgMax", [np.round(x)], {"axis": -1, "select_last_index": random.randrange(2)}),
            (13, "GlobalAveragePool", [floats(2, 3, 7, 5)], {}),
            (13, "Round", [np.round(x * 4) / 2], {}),
            (13, "Div", [x, floats(3, 1)], {}),
        ]
    )


KINDS = [conv, conv_transpose, pool, resize, resize, upsample, axes_op, movement, numbers, numbers]


def case(index, kind):
    """A case, or None where onnxruntime refuses it."""
    opset, op_type, inputs, attributes = kind()
    names = [f"x{i}" if not (i and v.size == 0) else "" for i, v in enumerate(inputs)]
    outputs = [f"y{i}" for i in range({"Split": 2 if opset == 11 else 3}.get(op_type, 1))]
    node = helper.make_node(op_type, names, outputs, **attributes)
    given = {n: np.asarray(v) for n, v in zip(names, inputs, strict=False) if n}
    ports = [helper.make_tensor_value_info("x0", helper.np_dtype_to_tensor_dtype(inputs[0].dtype), inputs[0].shape)]
    constants = [numpy_helper.from_array(v, n) for n, v in given.items() if n != "x0"]
    graph = helper.make_graph([node], "case", ports, [onnx.ValueInfoProto(name=o) for o in outputs], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    try:
        session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        results = session.run(None, {"x0": given["x0"]})
    except Exception as error:  # onnxruntime raises plain exceptions of its own
        return op_type, str(error)
    shown = [v.shape if v.size > 6 or v.ndim > 1 else v.tolist() for v in inputs]
    return op_type, {
        "name": f"{index} {op_type} opset {opset} {attributes} {shown}",
        "opsets": {"": opset},
        "constants": {},
        "nodes": [
            {
                "op_type": op_type,
                "domain": "",
                "inputs": names,
                "outputs": outputs,
                "attributes": {a.name: attribute(a) for a in node.attribute},
            }
        ],
        "sets": [
            {
                "inputs": {n: tensor(v) for n, v in given.items()},
                "outputs": {n: tensor(v) for n, v in zip(outputs, results, strict=False)},
            }
        ],
    }


def main(path, seed=0, count=3000):
    """Writes the cases."""
    random.seed(seed)
    np.random.seed(seed)
    refused, written = collections.Counter(), collections.Counter()
    with open(path, "w") as file:
        for index in range(count):
            op_type, made = case(index, random.choice(KINDS))
            if isinstance(made, str):
                refused[op_type, made[-100:]] += 1
                continue
            file.write(json.dumps(made) + "\n")
            written[op_type] += 1
    print(f"onnxruntime {onnxruntime.__version__}: {dict(written)}", *refused.most_common(12), sep="\n")


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
