"""Values that others published from hardware (tests/vectors/published), as models of one node."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

import nputwin

FILE = Path(__file__).parents[1] / "vectors/published/values.json"


@dataclass(frozen=True)
class Value:
    """One published value: a node, what it was fed, and the codes that the device gave."""

    id: str
    model: onnx.ModelProto
    encodings: dict[str, Any]
    feeds: dict[str, np.ndarray]
    published: list[int]
    element: int | None
    scale: float
    zero_point: int
    targets: list[str]
    """Shipped targets whose rules claim to reproduce it; empty where none does."""

    def computed(self, target: str, assume: dict[str, str] | None = None) -> list[int]:
        """The codes that a target gives for the published elements."""
        session = nputwin.Session(self.model, target=target, encodings=self.encodings, assume=assume or {}, threads=1)
        reals = np.asarray(session.run(None, self.feeds)[0], dtype=np.float64).ravel()
        codes = np.rint(reals / self.scale).astype(int) + self.zero_point
        return [int(codes[self.element])] if self.element is not None else codes.tolist()


def entry(name: str, encoding: dict[str, Any]) -> dict[str, Any]:
    """An encoding as an entry of an AIMET 2.0.0 file."""
    return {
        "name": name,
        "output_dtype": f"{'int' if encoding['signed'] else 'uint'}{encoding['bits']}",
        "y_scale": encoding["scale"],
        "y_zero_point": encoding["zero_point"],
    }


def build(case: dict[str, Any]) -> Value:
    """The model of a case; operands are fed as reals, and constants are initializers."""
    nodes, inputs, constants, entries, read, feeds = [], [], [], [], [], {}
    for i, operand in enumerate(case["inputs"]):
        if operand.get("absent"):
            read.append("")
            continue
        name, encoding = f"operand_{i}", operand.get("encoding")
        read.append(name)
        if "indices" in operand:
            array = np.array(operand["indices"], dtype=np.int64)
        elif "reals" in operand:
            array = np.array(operand["reals"], dtype=np.float32)
        else:
            array = ((np.array(operand["codes"]) - encoding["zero_point"]) * encoding["scale"]).astype(np.float32)
        array = array.reshape(operand["shape"])
        if encoding is not None:
            entries.append(entry(name, encoding))
        if operand.get("constant"):
            constants.append(numpy_helper.from_array(array, name))
            continue
        inputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, array.shape))
        feeds[name] = array
        if "converted" in operand:
            nodes.append(helper.make_node("Identity", [name], [f"{name}_converted"]))
            entries.append(entry(f"{name}_converted", operand["converted"]))
            read[-1] = f"{name}_converted"
    nodes.append(helper.make_node(case["op"], read, ["y"], case["id"], **case.get("attributes", {})))
    out = case["output"]["encoding"]
    entries.append(entry("y", out))
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, case["output"]["shape"])]
    graph = helper.make_graph(nodes, case["id"], inputs, outputs, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    encodings = {"version": "2.0.0", "encodings": entries}
    targets = [] if "unexplained" in case else case.get("targets", ["htp_v75"])
    tail = (case.get("element"), out["scale"], out["zero_point"], targets)
    return Value(case["id"], model, encodings, feeds, case["codes"], *tail)


def values() -> list[Value]:
    """All published values."""
    return [build(case) for case in json.loads(FILE.read_text(encoding="utf-8"))]
