"""Writes the node test cases of the installed `onnx` package as JSON lines, for tests/onnx_node_tests.rs.

python tests/onnx_node_cases.py /tmp/onnx_node_cases.jsonl
NPUTWIN_ONNX_NODE_CASES=/tmp/onnx_node_cases.jsonl cargo test --test onnx_node_tests -- --nocapture
"""

import json
import sys
import warnings

import numpy as np
import onnx
from onnx import AttributeProto, TensorProto, helper, numpy_helper

warnings.filterwarnings("ignore")


def tensor(value):
    """A tensor as JSON: dtype, shape and little-endian bytes in hexadecimal."""
    if isinstance(value, TensorProto):
        value = numpy_helper.to_array(value)
    array = np.asarray(value)
    dtype = array.dtype.name
    if dtype not in {
        "float64",
        "float32",
        "float16",
        "bfloat16",
        "bool",
        *(f"{s}int{b}" for s in ("", "u") for b in (8, 16, 32, 64)),
    }:
        raise ValueError(f"type {dtype}")
    return {"dtype": dtype, "shape": list(array.shape), "bytes": np.ascontiguousarray(array).tobytes().hex()}


def attribute(a):
    """An attribute as JSON: its kind and its value."""
    value = helper.get_attribute_value(a)
    match a.type:
        case AttributeProto.INT | AttributeProto.INTS:
            kind, value = ("int", value) if a.type == AttributeProto.INT else ("ints", list(value))
        case AttributeProto.FLOAT | AttributeProto.FLOATS:
            kind, value = ("float", value) if a.type == AttributeProto.FLOAT else ("floats", list(value))
        case AttributeProto.STRING:
            kind, value = "string", value.decode()
        case AttributeProto.TENSOR:
            kind, value = "tensor", tensor(value)
        case _:
            raise ValueError(f"attribute of type {a.type}")
    return {kind: value}


def case(test):
    """A test case as JSON."""
    graph = test.model.graph
    constants = {t.name: tensor(t) for t in graph.initializer}
    nodes = []
    for node in graph.node:
        if node.op_type == "Constant":
            (a,) = node.attribute
            value = helper.get_attribute_value(a)
            if a.name not in ("value", "value_int", "value_float", "value_ints", "value_floats"):
                raise ValueError(f"Constant with {a.name}")
            if a.name != "value":
                value = np.array(value, np.int64 if "int" in a.name else np.float32)
            constants[node.output[0]] = tensor(value)
            continue
        nodes.append(
            {
                "op_type": node.op_type,
                "domain": node.domain,
                "inputs": list(node.input),
                "outputs": list(node.output),
                "attributes": {a.name: attribute(a) for a in node.attribute},
            }
        )
    sets = []
    for inputs, outputs in test.data_sets:
        sets.append(
            {
                "inputs": {p.name: tensor(v) for p, v in zip(graph.input, inputs, strict=False)},
                "outputs": {p.name: tensor(v) for p, v in zip(graph.output, outputs, strict=False)},
            }
        )
    opsets = {o.domain: o.version for o in test.model.opset_import}
    return {"name": test.name, "opsets": opsets, "constants": constants, "nodes": nodes, "sets": sets}


def main(path):
    """Writes all cases that the format can hold."""
    from onnx.backend.test.case.node import collect_testcases

    written = skipped = 0
    with open(path, "w") as file:
        for test in collect_testcases(None):
            try:
                file.write(json.dumps(case(test)) + "\n")
                written += 1
            except (ValueError, TypeError, AttributeError) as error:
                skipped += 1
                print(f"{test.name}: {error}", file=sys.stderr)
    print(f"onnx {onnx.__version__}: {written} cases written, {skipped} skipped")


if __name__ == "__main__":
    main(sys.argv[1])
