"""Golden vectors through numpy arrays and `Session.run`, and implementations that are Python functions."""

import json
import re
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from conftest import ROOT

import nputwin

VECTORS = ROOT / "tests" / "vectors"
Arrays = dict[str, npt.NDArray[np.generic]]


def write_family(
    folder: Path, scales: tuple[str, str] = ("0.5", "0.25"), change: dict[str, object] | None = None
) -> Path:
    """A family `mine` of one encoding change whose outputs are what `requantized` computes, then changed."""
    folder.mkdir(exist_ok=True)
    x = np.arange(-128, 128, dtype=np.int8)
    operands = [("in0", "x", scales[0], 3), ("out", "y", scales[1], -7)]
    described = [
        {"role": r, "array": a, "dtype": "int8", "shape": [256], "scale": [s], "zero_point": [z], "axis": None}
        for r, a, s, z in operands
    ]
    case = {
        "id": "mine/Requantize/0",
        "file": "Requantize.npz",
        "op": "Requantize",
        "attributes": {},
        "inputs": described[:1],
        "outputs": described[1:],
    }
    case.update(change or {})
    document = {"format": "nputwin-golden/1", "family": "mine", "cases": [case]}
    (folder / "cases.json").write_text(json.dumps(document))
    np.savez(folder / "Requantize.npz", x=x, y=requantized(x))
    return folder


def requantized(x: npt.NDArray[np.generic]) -> npt.NDArray[np.int8]:
    """0.5·(x - 3) in steps of 0.25 around -7: exact."""
    return np.clip(2 * (x.astype(np.int64) - 3) - 7, -128, 127).astype(np.int8)


def right(case: nputwin.VectorCase, arrays: Arrays) -> npt.NDArray[np.int8]:
    assert (case.op, case.inputs[0]["scale"], case.activation) == ("Requantize", ["0.5"], None)
    return requantized(arrays["in0"])


def wrong_by_one(case: nputwin.VectorCase, arrays: Arrays) -> npt.NDArray[np.int8]:
    y = right(case, arrays).copy()
    y[130] += 1
    return y


def test_the_selection_is_equal_through_python() -> None:
    result = nputwin.conformance(VECTORS, runtimes=["python"])
    assert result.equal, result
    assert result.runtimes == ["python"]
    assert sum(row.cases for row in result.rows) > 900
    assert {"cmsis_nn", "onnxruntime_cpu", "tflite_micro"} <= {row.target for row in result.rows}
    left_out = [case for case in result.cases if case.skipped]
    assert all(len(case.skipped or "") > 20 for case in left_out)


def test_an_implementation_is_compared_bit_for_bit(tmp_path: Path) -> None:
    folder = write_family(tmp_path)
    result = nputwin.conformance(folder, implementation=right)
    assert result.equal
    assert result.runtimes == ["implementation"]
    result = nputwin.conformance(folder, "tflite_micro", implementation=wrong_by_one)
    (row,) = result.rows
    assert (row.op, row.equal, row.cases, row.runtimes) == ("Requantize", 0, 1, {"implementation": 0})
    assert row.fault is not None
    assert (row.fault.index, row.fault.found, row.fault.expected) == (130, -8, -9)
    assert any("rule" in line for line in row.fault.trace)
    assert "1 of 256 elements differ, by up to 1" in str(result)


def test_an_implementation_may_be_held_against_a_target(tmp_path: Path) -> None:
    folder = write_family(tmp_path)
    with np.load(folder / "Requantize.npz") as archive:
        np.savez(folder / "Requantize.npz", x=archive["x"])  # no expected output
    compared = nputwin.conformance(folder, "tflite_micro", implementation=right, against_target=True)
    assert compared.equal, compared
    assert not nputwin.conformance(folder, "tflite_micro", implementation=right).equal
    with pytest.raises(nputwin.InvalidError, match="needs a target"):
        nputwin.conformance(folder, implementation=right, against_target=True)


def failing(_case: nputwin.VectorCase, _arrays: Arrays) -> npt.NDArray[np.int8]:
    raise ZeroDivisionError("the accumulator is out of order")


@pytest.mark.parametrize(
    ("implementation", "text"),
    [
        (failing, "the accumulator is out of order"),
        (lambda case, arrays: arrays["in0"].astype(np.int16), "int16 of shape [256] instead of int8"),
        (lambda case, arrays: arrays["in0"][1:], "int8 of shape [255] instead of int8 of shape [256]"),
        (lambda case, arrays: np.array(["a"]), "cannot be a tensor"),
        (lambda case, arrays: arrays["w"], "'w'"),
    ],
)
def test_what_an_implementation_does_wrong_is_in_the_report(tmp_path: Path, implementation, text: str) -> None:
    result = nputwin.conformance(write_family(tmp_path), implementation=implementation)
    assert not result.equal
    assert text in result.cases[0].outcomes["implementation"]


def test_a_case_that_cannot_run_is_not_equal(tmp_path: Path) -> None:
    folder = write_family(tmp_path, scales=("nan", "0.25"))
    result = nputwin.conformance(folder, "tflite_micro", runtimes=["python", "reference"])
    assert not result.equal
    assert all("scale" in text for text in result.cases[0].outcomes.values())
    assert result.rows[0].fault is not None
    assert result.rows[0].fault.index is None


def test_wrong_requests_are_errors(tmp_path: Path) -> None:
    for arguments, code in [
        ({"families": ["cmsis"]}, "family_unknown"),
        ({"runtimes": ["abacus"]}, "runtime_unknown"),
        ({"only": "no such case"}, "vector_none"),
        ({"target": "htp_v57"}, "target_unknown"),
        ({"runtimes": ["tile"], "implementation": lambda case, arrays: arrays["in0"]}, "conformance_runtimes"),
    ]:
        with pytest.raises(nputwin.InvalidError) as caught:
            nputwin.conformance(VECTORS, **arguments)
        assert caught.value.code == code
    with pytest.raises(nputwin.InvalidError, match=re.escape("cases.json")):
        nputwin.conformance(tmp_path)
    with pytest.raises(nputwin.FileError):
        nputwin.conformance(tmp_path / "none")


def test_a_family_that_nobody_claims_is_named(tmp_path: Path) -> None:
    with pytest.raises(nputwin.InvalidError, match="no shipped target claims mine"):
        nputwin.conformance(write_family(tmp_path))
