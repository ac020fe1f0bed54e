"""What calls return."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy.typing as npt

from nputwin import _html
from nputwin._native import Encoding

_ONNX_TYPES = {
    "float64": "double",
    "float32": "float",
    "float16": "float16",
    "bfloat16": "bfloat16",
}


@dataclass(frozen=True)
class Port:
    """An input or output of a session.

    Attributes:
        name: Its name.
        dtype: numpy's name of the element type.
        shape: Numbers, names of open dimensions, or None where the file gives neither; None for an unknown rank.
        encoding: How the tensor is quantized under the target; None where it is not.
    """

    name: str
    dtype: str
    shape: list[int | str | None] | None
    encoding: Encoding | None

    @property
    def type(self) -> str:
        """Element type in onnxruntime's words, such as `tensor(float)`."""
        return f"tensor({_ONNX_TYPES.get(self.dtype, self.dtype)})"


@dataclass(frozen=True)
class Dumped:
    """A tensor from inside a run.

    Attributes:
        name: Its name in the model.
        aliases: Other names that the file gives it, such as those of its quantized and dequantized twins.
        codes: Integers of `encoding`, where the target holds the tensor as codes.
        value: Reals (or the tensor's own type), dequantized from the codes where there are any.
        encoding: How the tensor is quantized; None where it is not.
    """

    name: str
    aliases: list[str]
    codes: npt.NDArray[Any] | None
    value: npt.NDArray[Any]
    encoding: Encoding | None


@dataclass(frozen=True)
class Node:
    """How one node runs under a target.

    Attributes:
        name: Node name.
        op_type: ONNX operator.
        mode: "integer", "intrinsic", "move", "float" or "folded".
        rule: Rule of the spec that gave the arithmetic, with the alternative chosen.
        status: Evidence of that rule: "executed", "source", "documented", "fitted" or "assumed".
        source: Where the evidence is.
    """

    name: str
    op_type: str
    mode: str
    rule: str | None
    status: str | None
    source: str | None


@dataclass(frozen=True)
class Note:
    """Something that the target's placement rules changed, or that runs in float.

    Attributes:
        place: Node or tensor.
        text: One sentence.
    """

    place: str
    text: str


@dataclass(frozen=True)
class Report:
    """How a model runs under a target, and what that rests on.

    Attributes:
        nodes: Nodes in order.
        notes: What placement changed, and what runs in float.
        status: The weakest evidence among the rules used.
    """

    nodes: list[Node]
    notes: list[Note]
    status: str

    def _repr_html_(self) -> str:
        rows = [(n.name, n.op_type, n.mode, n.rule, n.status) for n in self.nodes]
        caption = f"{len(self.nodes)} nodes; weakest evidence: {self.status}"
        nodes = _html.table(["node", "operator", "runs as", "rule", "evidence"], rows, caption)
        return nodes + _html.table(["place", "note"], [(n.place, n.text) for n in self.notes])


@dataclass(frozen=True)
class Target:
    """A shipped target.

    Attributes:
        name: Its name, for `target=`.
        aliases: Other names of the same arithmetic.
        title: One line.
        status: The weakest evidence among all its rules.
        hash: SHA-256 over its rules.
    """

    name: str
    aliases: list[str]
    title: str
    status: str
    hash: str


@dataclass(frozen=True)
class Explanation:
    """How one element of a tensor came about.

    Attributes:
        target: Name of the target.
        tensor: Name of the tensor.
        index: Flat index of the element, row-major.
        node: Name and operator of the node that computed it.
        operands: What went in: operands, sums, counts, as pairs of name and value.
        trace: The steps to the element: `channel`, `steps` and `result`. A step has `text`, `value` and `kind`:
            "input", "constant", "step", or "stage", the result of one kernel that the next one reads. Some have a
            `name`, and `exact`, the value before rounding.
    """

    target: str
    tensor: str
    index: int
    node: tuple[str, str] | None
    operands: list[tuple[str, str]]
    trace: Any

    def __str__(self) -> str:
        at = f" at {self.node[0]} ({self.node[1]})" if self.node else ""
        lines = [f"{self.tensor}[{self.index}] under {self.target}{at}"]
        lines += [f"  {name} = {value}" for name, value in self.operands]
        lines += [f"  {line}" for line in trace_lines(self.trace)]
        lines.append(f"  result   {self.trace['result']}")
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        rows = [*self.operands, *(("", line) for line in trace_lines(self.trace))]
        return _html.table(["name", "value"], rows, f"{self.tensor}[{self.index}] under {self.target}")


def trace_lines(trace: Any) -> list[str]:
    """The steps of a trace, one line each, with the exact value before each rounding."""
    lines = []
    for step in trace["steps"] if trace else []:
        name = step.get("name")
        shown = f"{name} = {step['text']}" if name and name != step["text"] else step["text"]
        exact = step.get("exact")
        line = f"{step['kind']:8} {shown} = {step['value']}"
        lines.append(f"{line} (exactly {exact['decimal']})" if exact else line)
    return lines
