"""What arithmetic costs that has no vector form: the same network under targets that differ in one rule.

`make programs`, or `python benches/programs.py --help`. Each program replaces the rule of one operator; printed is the
time of the steps of that operator, and of the whole network, over those of the built-in rule. Runs take turns; the
least times count.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
from pathlib import Path
from typing import Any

BASE = "onnxruntime_cpu"

CONV = {
    "float32 scale (built in)": None,
    "dropped bits, then a product (no vector form)": """
let.r = "x.scale * w.scale / y.scale"
y = "sat(shr(shr(acc, 2, half_up) * int(ldexp(r, 24), half_even), 22, half_even) + y.zp, y)"
""",
    "a shift by what the sum is (no vector form)": """
let.m = "int(ldexp(x.scale * w.scale / y.scale, 24), half_even)"
y = "sat(select(acc < 0, shr(acc * m, 24, half_up), shr(shr(acc * m, 4, floor), 20, half_away)) + y.zp, y)"
""",
}

ADD = {
    "float32 sum (built in)": None,
    "one rounding of a fixed-point sum": """
let.ra = "int(a.scale / y.scale * 4096.0, half_even)"
let.rb = "int(b.scale / y.scale * 4096.0, half_even)"
let.c = "int((f64(y.zp) - f64(a.zp) * (a.scale / y.scale) - f64(b.zp) * (b.scale / y.scale)) * 4096.0, half_even)"
y = "sat(shr(a * ra + b * rb + c, 12, half_up), y)"
""",
    "operands rounded before the sum": """
let.ra = "int(a.scale / y.scale * 65536.0, half_even)"
let.rb = "int(b.scale / y.scale * 65536.0, half_even)"
y = "sat(shr(shr((a - a.zp) * ra, 4, half_away) + shr((b - b.zp) * rb, 4, half_away), 12, half_even) + y.zp, y)"
""",
    "float64 sum (no vector form)": """
let.ra = "a.scale / y.scale"
let.rb = "b.scale / y.scale"
y = "sat(int(f64(a - a.zp) * ra + f64(b - b.zp) * rb + f64(y.zp) + 0.5, floor), y)"
""",
    "maximum and sum (no vector form)": """
let.ra = "int(a.scale / y.scale * 4096.0, half_even)"
let.rb = "int(b.scale / y.scale * 4096.0, half_even)"
y = "sat(shr((a - a.zp) * ra + (b - b.zp) * rb + max(a, b), 12, half_up) + y.zp, y)"
""",
}


def profile(tool: str, model: Path, target: str) -> dict[str, Any]:
    """One run of `nputwin bench` on one thread, with a step per operator."""
    command = [tool, "bench", str(model), "--target", target, "--threads", "1", "--apart", "--json"]
    done: dict[str, Any] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return done


def main() -> None:
    """Prints a table per operator."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("model", type=Path, nargs="?", default=Path("../shared/models/resnet18.q.onnx"))
    parser.add_argument("--tool", default="target/release/nputwin")
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        for operator, programs in (("Conv", CONV), ("Add", ADD)):
            targets = {}
            for i, (name, rule) in enumerate(programs.items()):
                path = Path(scratch) / f"{operator.lower()}_{i}.toml"
                evidence = 'evidence = { status = "assumed", source = "a benchmark" }'
                text = f'schema_version = 1\nname = "{path.stem}"\ntitle = "{name}"\nextends = ["{BASE}.toml"]\n'
                path.write_text(text + (f"[rules.{operator}]{rule}{evidence}\n" if rule else ""))
                targets[name] = str(path)
            steps = dict.fromkeys(targets, float("inf"))
            whole = dict.fromkeys(targets, float("inf"))
            for _ in range(arguments.rounds):
                for name, target in targets.items():
                    run = profile(arguments.tool, arguments.model, target)
                    own = [s["ms"] for s in run["steps"] if s["label"].startswith(f"{operator} ")]
                    steps[name], whole[name] = min(steps[name], sum(own)), min(whole[name], run["min_ms"])
            first = next(iter(targets))
            print(f"\n| {operator} of {arguments.model.name} | ms | ratio | network ms | ratio |")
            print("|---|---|---|---|---|")
            for name in targets:
                print(
                    f"| {name} | {steps[name]:.2f} | {steps[name] / steps[first]:.2f} | {whole[name]:.2f} | "
                    f"{whole[name] / whole[first]:.2f} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
