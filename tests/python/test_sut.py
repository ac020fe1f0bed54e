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


def conformance(*options: str) -> tuple[int, dict]:
    command = ["conformance", str(ROOT / "tests/vectors/cmsis-nn"), "--only", "/Gemm/", "--json"]
    result = subprocess.run(
        [sys.executable, "-m", "nputwin", *command, *options],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert result.stdout, result.stderr
    return result.returncode, json.loads(result.stdout)


def run(folder: Path, change: str, *options: str) -> tuple[int, dict]:
    script = folder / "model.py"
    script.write_text(MODEL.replace("CHANGE", change))
    return conformance("--sut", f"'{sys.executable}' '{script}'", *options)


# The same implementation as one process for all cases.
SERVER = """
import json, os, sys, time
from pathlib import Path
log = Path(__file__).with_name("served.txt")
for number, line in enumerate(sys.stdin):
    request = json.loads(line)
    with log.open("a") as file:
        print(os.getpid(), request["id"], file=file)
    answer = {"id": request["id"]}
    CHANGE
    sys.argv = ["model", request["dir"]]
    exec(compile(Path(__file__).with_name("model.py").read_text(), "model.py", "exec"), {})
    assert Path(request["output"]).is_file()
    print(json.dumps(answer), flush=True)
"""


def serve(folder: Path, change: str, *options: str, model: str = "") -> tuple[int, dict]:
    (folder / "model.py").write_text(MODEL.replace("CHANGE", model))
    script = folder / "server.py"
    script.write_text(SERVER.replace("CHANGE", change))
    return conformance("--sut-batch", f"'{sys.executable}' '{script}'", *options)


def served(folder: Path) -> tuple[set[str], list[str]]:
    """The processes that served, and the cases."""
    lines = [line.split() for line in (folder / "served.txt").read_text().splitlines()]
    return {pid for pid, _ in lines}, [case for _, case in lines]


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


def test_one_process_serves_all_cases(tmp_path: Path) -> None:
    code, summary = serve(tmp_path, "")
    assert (code, failures(summary)) == (0, [])
    processes, cases = served(tmp_path)
    assert len(processes) == 1
    assert sorted(cases) == sorted(case["id"] for case in summary["reports"][0]["cases"])
    code, summary = serve(tmp_path, "", model="y[0, 0] ^= 1")
    assert code == 1
    assert all(outcome["index"] == 0 and outcome["elements"] == 1 for outcome in failures(summary))


@pytest.mark.parametrize(
    ("change", "text", "restarts"),
    [
        ("time.sleep(60)", "did not answer case '{id}' within 3 s", True),
        ("raise SystemExit('no licence')", "at case '{id}'; it said:\nno licence", True),
        ("print('hello')", "answered case '{id}' with 'hello'", True),
        ("answer['id'] = 'another'", "answered case '{id}' with", True),
        ("answer['error'] = 'too wide'", "refuses case '{id}': too wide", False),
        ("print(json.dumps(answer), flush=True); continue", "no out.npy", False),
    ],
)
def test_a_broken_process_is_reported_with_the_case(tmp_path: Path, change: str, text: str, restarts: bool) -> None:
    code, summary = serve(tmp_path, change, "--timeout", "3")
    assert code == 1
    cases = summary["reports"][0]["cases"]
    for case in cases:
        message = case["outcomes"][0][1]["message"]
        assert text.replace("{id}", case["id"]) in message
    assert len(served(tmp_path)[0]) == (len(cases) if restarts else 1)


def test_the_cases_after_a_crash_are_served_again(tmp_path: Path) -> None:
    code, summary = serve(tmp_path, "if number == 1: os._exit(3)", "-j", "1")
    assert code == 1
    outcomes = [case["outcomes"][0][1] for case in summary["reports"][0]["cases"]]
    fails = [outcome["outcome"] == "failed" for outcome in outcomes]
    assert fails == [i % 2 == 1 for i in range(len(fails))]
    assert all("exit status: 3" in outcome["message"] for outcome in outcomes[1::2])
