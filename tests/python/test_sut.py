"""`nputwin conformance --sut`: an implementation in numpy, as somebody would write one for their RTL or C model."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

# Fully connected layers of one runtime: exact sums, then a multiplier of 31 bits with double rounding.
MODEL = """
import json, math, sys, time
from pathlib import Path
import numpy as np

folder = Path(sys.argv[-1])
case = json.loads((folder / "case.json").read_text())
operands = {o["role"]: o for o in case["inputs"] + case["outputs"]}
arrays = {o["role"]: np.load(folder / o["file"]).astype(np.int64) for o in case["inputs"]}
scale = {role: np.array([float(s) for s in o["scale"]]) for role, o in operands.items()}
zero = {role: o["zero_point"][0] for role, o in operands.items()}

def multiplied(acc, ratio):
    mantissa, exponent = math.frexp(ratio)
    m = int(mantissa * 2**31 + 0.5)
    if m == 2**31:
        m, exponent = 2**30, exponent + 1
    v = acc << max(exponent, 0)
    product = v * m
    high = product + (2**30 if product >= 0 else 1 - 2**30)
    high = high // 2**31 if high >= 0 else -(-high // 2**31)  # towards zero, as C divides
    shift = max(-exponent, 0)
    rest, half = high & ((1 << shift) - 1), ((1 << shift) - 1) >> 1
    return (high >> shift) + (rest > half + (high < 0))

x, w = arrays["in0"] - zero["in0"], arrays["w"]
acc = x @ w.T + arrays.get("b", np.zeros(len(w), np.int64))
ratios = np.broadcast_to(scale["in0"][0] * scale["w"] / scale["out"][0], (len(w),))
y = np.array([[multiplied(int(a), float(r)) for a, r in zip(row, ratios)] for row in acc]) + zero["out"]
activation = case["activation"] or {}
y = np.clip(y, activation.get("qmin", -128), activation.get("qmax", 127)).astype(np.int8)
CHANGE
np.save(folder / "out.npy", y)
"""


def run(folder: Path, change: str, *options: str) -> tuple[int, dict]:
    script = folder / "model.py"
    script.write_text(MODEL.replace("CHANGE", change))
    command = ["conformance", str(ROOT / "tests/vectors/cmsis-nn"), "--only", "/Gemm/", "--json"]
    implementation = ["--sut", f"'{sys.executable}' '{script}'"]
    result = subprocess.run(
        [sys.executable, "-m", "nputwin", *command, *implementation, *options],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert result.stdout, result.stderr
    return result.returncode, json.loads(result.stdout)


def failures(summary: dict) -> list[dict]:
    outcomes = [case["outcomes"][0][1] for case in summary["reports"][0]["cases"]]
    return [outcome for outcome in outcomes if outcome["outcome"] != "equal"]


def test_a_right_model_equals_the_vectors_and_the_target(tmp_path: Path) -> None:
    code, summary = run(tmp_path, "")
    assert failures(summary) == []
    assert (code, summary["equal"]) == (0, True)
    assert sum(row["cases"] for row in summary["reports"][0]["rows"]) >= 4
    code, summary = run(tmp_path, "", "--against-spec", "cmsis_nn")
    assert (code, failures(summary)) == (0, [])


@pytest.mark.parametrize("options", [(), ("--against-spec", "cmsis_nn"), ("--target", "cmsis_nn")])
def test_one_wrong_code_is_found_and_explained(tmp_path: Path, options: tuple[str, ...]) -> None:
    code, summary = run(tmp_path, "y[-1, -1] += 1 if y[-1, -1] < 127 else -1", *options)
    assert code == 1
    found = failures(summary)
    assert found
    assert all(outcome["elements"] == 1 and outcome["index"] == outcome["total"] - 1 for outcome in found)
    account = summary["reports"][0]["rows"][0]["fault"]["account"]
    assert (account is not None) == bool(options)
    if account:
        assert account["explanation"]["trace"]["result"] == str(int(found[0]["expected"]))


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ("time.sleep(60)", "did not end within 3 s"),
        ("raise SystemExit('no licence')", "no licence"),
        ("y = y.astype(np.int32)", "int32 of shape"),
        ("y = y[:, :-1]", "instead of int8 of shape"),
        ("sys.exit(0)", "no out.npy"),
    ],
)
def test_a_broken_model_is_reported_per_case(tmp_path: Path, change: str, text: str) -> None:
    code, summary = run(tmp_path, change, "--timeout", "3")
    assert code == 1
    found = failures(summary)
    assert len(found) == len(summary["reports"][0]["cases"])
    assert all(text in outcome["message"] for outcome in found)
