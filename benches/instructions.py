"""Instructions per inference under callgrind: a measure that does not depend on what else the machine does.

Valgrind has no AVX-512, so the AVX2 paths run. The figures of two numbers of runs are subtracted, which leaves loading
and preparation out. `--write FILE` records them; `--check FILE` compares, and fails beyond two percent.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path


def instructions(tool: str, model: Path, target: str, runs: int) -> int:
    """Instructions of a whole process that runs the model `runs` times."""
    with tempfile.TemporaryDirectory() as scratch:
        command = [
            *("valgrind", "--tool=callgrind", f"--callgrind-out-file={scratch}/out"),
            *(tool, "bench", str(model), "--target", target, "--threads", "1", "--runs", str(runs), "--warmup", "0"),
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    match = re.search(r"Collected : (\d+)", done.stderr)
    if match is None:
        sys.exit(f"no count in the output of valgrind:\n{done.stderr}")
    return int(match[1])


def main() -> None:
    """Prints, records or compares the counts."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("models", type=Path, nargs="+")
    parser.add_argument("--target", default="onnxruntime_cpu")
    parser.add_argument("--tool", default="target/release/nputwin")
    parser.add_argument("--write", type=Path)
    parser.add_argument("--check", type=Path)
    arguments = parser.parse_args()
    counts = {}
    for model in arguments.models:
        # A timed run is followed by a profiled one, up to ten of them: the difference is that of eight runs.
        once, more = (instructions(arguments.tool, model, arguments.target, runs) for runs in (1, 5))
        counts[model.name] = (more - once) // 8
        print(f"{model.name}: {counts[model.name] / 1e6:.1f} million instructions per inference", flush=True)
    compiler = subprocess.run(["rustc", "--version"], capture_output=True, text=True, check=True).stdout.strip()
    if arguments.write:
        record = {"compiler": compiler, "target": arguments.target, "instructions": counts}
        arguments.write.write_text(json.dumps(record, indent=1, sort_keys=True) + "\n")
    if arguments.check:
        record = json.loads(arguments.check.read_text())
        if record["target"] != arguments.target:
            sys.exit(f"{arguments.check} holds counts of {record['target']}, not of {arguments.target}")
        if record["compiler"] != compiler:
            print(f"the counts were recorded with {record['compiler']}, this is {compiler}", file=sys.stderr)
        known = record["instructions"]
        worse = [name for name, count in counts.items() if name in known and count > known[name] * 1.02]
        for name in worse:
            print(f"{name}: {counts[name] / known[name]:.3f} times the recorded count", file=sys.stderr)
        sys.exit(1 if worse else 0)


if __name__ == "__main__":
    main()
