"""`conformance`: golden vectors of other implementations, bit for bit."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from nputwin import _html, _native
from nputwin._results import trace_lines
from nputwin._session import Session
from nputwin.errors import invalid

__all__ = ["Conformance", "ConformanceCase", "ConformanceFault", "ConformanceRow", "VectorCase", "conformance"]


@dataclass(frozen=True)
class VectorCase:
    """A case as an implementation sees it.

    Attributes:
        id: Its name.
        op: ONNX operator, or `Requantize`, `QuantizeLinear`, `DequantizeLinear`, `LUT`.
        attributes: In ONNX's terms.
        inputs: Per operand a dictionary with role, dtype, shape, scale (decimal strings), zero_point and axis.
        outputs: The same for the one output.
        activation: The fused activation's bounds in codes, where there is one.
        document: Everything that `cases.json` says of the case.
    """

    id: str
    op: str
    attributes: Mapping[str, Any]
    inputs: Sequence[Mapping[str, Any]]
    outputs: Sequence[Mapping[str, Any]]
    activation: Mapping[str, Any] | None
    document: Mapping[str, Any]


Implementation = Callable[[VectorCase, dict[str, npt.NDArray[Any]]], npt.NDArray[Any]]


@dataclass(frozen=True)
class ConformanceFault:
    """What went wrong first in a row.

    Attributes:
        case: Id of the case.
        runtime: Where.
        text: What happened in words.
        index: Flat index of the first element that differs; None where the case could not run.
        found: What the runtime computed there.
        expected: What the vector says.
        trace: How the target arrives at the element, line by line.
    """

    case: str
    runtime: str
    text: str
    index: int | None
    found: float | None
    expected: float | None
    trace: list[str]


@dataclass(frozen=True)
class ConformanceRow:
    """The cases of one operator and its types.

    Attributes:
        family: Family of vectors.
        target: Target; None where only an implementation and vectors were compared.
        op: Operator and types.
        equal: Cases that are equal on every runtime, out of `cases`.
        cases: Cases that count.
        skipped: Cases that the target does not claim, each with a reason.
        runtimes: Equal cases per runtime.
        fault: What went wrong first; None where nothing did.
    """

    family: str
    target: str | None
    op: str
    equal: int
    cases: int
    skipped: int
    runtimes: dict[str, int]
    fault: ConformanceFault | None


@dataclass(frozen=True)
class ConformanceCase:
    """One case on all runtimes.

    Attributes:
        family: Family of vectors.
        target: Target; None where only an implementation and vectors were compared.
        id: Name of the case.
        op: Operator and types: the row that it counts in.
        skipped: Why the target does not claim it; None where it does.
        outcomes: Per runtime "equal", or what happened in words.
    """

    family: str
    target: str | None
    id: str
    op: str
    skipped: str | None
    outcomes: dict[str, str]


@dataclass(frozen=True)
class Conformance:
    """What `conformance` found.

    Attributes:
        equal: Whether every case that counts is equal on every runtime.
        runtimes: Names of the runtimes.
        rows: The table: one row per family, target and operator.
        cases: Every case.
        unclaimed: Families that no shipped target claims; nothing ran for them.
    """

    equal: bool
    runtimes: list[str]
    rows: list[ConformanceRow]
    cases: list[ConformanceCase]
    unclaimed: list[str]

    def __str__(self) -> str:
        lines = [" ".join(f"{cell}" for cell in cells) for cells in self._cells()]
        for row in self.rows:
            if row.fault:
                lines += [f"{row.fault.case} on {row.fault.runtime}: {row.fault.text}"]
                lines += [f"  {line}" for line in row.fault.trace]
        return "\n".join(lines)

    def _cells(self) -> list[list[str]]:
        return [
            [r.family, r.target or "-", r.op, f"{r.equal} of {r.cases} equal, {r.skipped} skipped"] for r in self.rows
        ]

    def _repr_html_(self) -> str:
        return _html.table(["family", "target", "op", "result"], self._cells(), "conformance")


def conformance(
    folders: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    target: str | os.PathLike[str] | None = None,
    *,
    families: Sequence[str] | None = None,
    only: str | None = None,
    runtimes: Sequence[str] | None = None,
    implementation: Implementation | None = None,
    against_target: bool = False,
    jobs: int = 0,
) -> Conformance:
    """Runs golden vectors and compares every bit.

    Args:
        folders: Folders with a `cases.json`, or with such folders in them.
        target: Name of a target or path of a spec file; None for every shipped target that claims a family.
        families: Names of families; None for all.
        only: Text that the ids of cases must contain.
        runtimes: What runs the cases: `reference`, `tile`, instruction sets such as `avx2`, `2_threads`,
            `7_threads`, and `python` (through numpy arrays and `Session.run`); None for all that this machine has.
        implementation: Somebody else's implementation, in place of the runtimes: it gets the case and an array per
            role, and returns the output.
        against_target: Compare with what `target` computes, not with the vectors' outputs.
        jobs: Cases that run at the same time; 0 for as many as the machine has threads.

    Raises:
        InvalidError: A folder holds no family, a `cases.json` is wrong, a family or runtime is unknown. A case that
            cannot run is no exception: it counts as not equal.

    Example:
        >>> result = nputwin.conformance("tests/vectors", "cmsis_nn", families=["cmsis-nn"])
        >>> assert result.equal, result
    """
    if against_target and target is None:
        raise invalid("conformance_target", "against_target needs a target")
    if runtimes and implementation is not None:
        raise invalid("conformance_runtimes", "an implementation runs in place of the runtimes: give one of the two")
    chosen = [folders] if isinstance(folders, str | os.PathLike) else folders
    text = _native.conformance(
        [os.fspath(folder) for folder in chosen],
        target=None if target is None else os.fspath(target),
        families=list(families or []),
        only=only,
        runtimes=list(runtimes or []),
        against_target=against_target,
        jobs=jobs,
        through_python=_through_session,
        implementation=None if implementation is None else _adapted(implementation),
    )
    summary = json.loads(text)
    rows, cases = [], []
    for report in summary["reports"]:
        family, under = report["family"], report["target"]
        rows += [_row(family, under, row) for row in report["rows"]]
        cases += [_case(family, under, case) for case in report["cases"]]
    return Conformance(summary["equal"], summary["runtimes"], rows, cases, summary["unclaimed"])


def _through_session(native: _native.Session, feeds: dict[str, npt.NDArray[Any]]) -> npt.NDArray[Any]:
    (output,) = Session._of(native).run(None, feeds)
    return output


def _adapted(implementation: Implementation) -> Callable[[str, dict[str, npt.NDArray[Any]]], npt.NDArray[Any]]:
    def call(text: str, arrays: dict[str, npt.NDArray[Any]]) -> npt.NDArray[Any]:
        case = json.loads(text)
        fields = ("id", "op", "attributes", "inputs", "outputs", "activation")
        return np.asarray(implementation(VectorCase(**{name: case[name] for name in fields}, document=case), arrays))

    return call


def _words(outcome: Mapping[str, Any]) -> str:
    if outcome["outcome"] == "equal":
        return "equal"
    if outcome["outcome"] == "failed":
        return str(outcome["message"])
    return (
        f"{outcome['elements']} of {outcome['total']} elements differ, by up to {outcome['largest']:g}; "
        f"the first at {outcome['coordinates']}: {outcome['found']:g} instead of {outcome['expected']:g}"
    )


def _row(family: str, target: str | None, row: Mapping[str, Any]) -> ConformanceRow:
    fault = None
    if row["fault"]:
        outcome = row["fault"]["outcome"]
        fault = ConformanceFault(
            case=row["fault"]["case"],
            runtime=row["fault"]["runtime"],
            text=_words(outcome),
            index=outcome.get("index"),
            found=outcome.get("found"),
            expected=outcome.get("expected"),
            trace=_account(row["fault"]["account"]),
        )
    counts = {name: int(row[name]) for name in ("equal", "cases", "skipped")}
    return ConformanceRow(family, target, row["op"], runtimes=dict(row["runtimes"]), fault=fault, **counts)


def _account(account: Mapping[str, Any] | None) -> list[str]:
    if account is None:
        return []
    explanation = account["explanation"] or {}
    lines = [f"{name} = {value}" for name, value in [*explanation.get("operands", []), *account["operands"]]]
    lines += trace_lines(explanation.get("trace"))
    if account["without"]:
        lines.append(f"no trace: {account['without']}")
    return lines + [f"rule {rule}: {e['status']}, {e['source']}" for rule, e in account["rules"]]


def _case(family: str, target: str | None, case: Mapping[str, Any]) -> ConformanceCase:
    outcomes = {runtime: _words(outcome) for runtime, outcome in case["outcomes"]}
    return ConformanceCase(family, target, case["id"], case["group"], case["exception"], outcomes)
