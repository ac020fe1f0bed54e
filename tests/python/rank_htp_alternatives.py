"""Ranks the alternatives of a modelled target by the numbers that others published from hardware.

    python tests/python/rank_htp_alternatives.py [--target htp_v75] [--rules Add quantize_input …] [--json]

Each alternative of a rule is tried with all other rules at their choice, against

- the values of tests/vectors/published: how many of those that the target claims it gives, and the sum of its
  differences in codes;
- the three tables of quic/aimet issue 3978, whose networks are rebuilt from their seed (needs torch, takes minutes;
  `--values-only` leaves them out): the error of the MSE in each row, the normalized MSE and L1 of the four-row tables,
  and off-by-N.

The order is: values missed, then the root mean square of all relative errors. Small differences between alternatives
mean nothing: the tables are one sample of one network, and dozens of hypotheses were compared with them.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from published_values import Value, values
from tqdm.auto import tqdm

from nputwin import demo


@dataclass
class Score:
    """How one alternative of one rule does."""

    rule: str
    alternative: str
    chosen: bool
    missed: list[str] = field(default_factory=list)
    """Ids of published values that the target claims and this alternative does not give."""
    code_error: int = 0
    """Sum of absolute differences in codes over the claimed values."""
    rms: float | None = None
    """Root mean square of the relative errors over all rows and columns of the tables."""
    mean_ratio: float | None = None
    """Mean ratio of emulated to published MSE in the fifteen-row table."""
    off_by_n: list[int] | None = None
    """Largest difference in codes at 1, 9, 19 and 29 layers with the cumulative Add."""

    def key(self) -> tuple[int, float, int]:
        """Better is smaller."""
        return (len(self.missed), self.rms if self.rms is not None else math.inf, self.code_error)


def alternatives(target: str) -> dict[str, tuple[str, list[str]]]:
    """Rules of a target with a choice: the choice, and all alternatives."""
    found = {}
    for rule in demo.command_json(["spec", "show", target])["rules"]:
        if rule["choice"]:
            found[rule["name"]] = (rule["choice"], sorted([rule["choice"], *rule["alternatives"]]))
    return found


def score_values(score: Score, target: str, published: list[Value]) -> None:
    """Runs the published values that the target claims."""
    for value in published:
        codes = value.computed(target, {score.rule: score.alternative})
        error = sum(abs(a - b) for a, b in zip(codes, value.published, strict=True))
        score.code_error += error
        if error:
            score.missed.append(value.id)


def prepare_tables(folder: Path) -> Iterator[tuple[demo.Table, list[str]]]:
    """The networks of the issue as files for `nputwin demo --weights`."""
    for table in (demo.FIFTEEN_ROWS, demo.WITH_ADD, demo.WITHOUT_ADD):
        paths = []
        networks = zip(table.depths, demo.seed_networks(table), strict=True)
        for depth, arrays in tqdm(networks, table.title, total=len(table.depths), disable=None):
            path = folder / f"{table.key}_{depth}.npz"
            np.savez(path, **arrays)
            paths.append(str(path))
        yield table, paths


def score_tables(score: Score, tables: list[tuple[demo.Table, list[str]]], folder: Path) -> None:
    """Runs the issue's networks."""
    errors: list[float] = []
    for table, paths in tables:
        assumption = f"{score.rule}={score.alternative}"
        outcome = demo.command_json(["demo", "--assume", assumption, "--output-dir", str(folder), "--weights", *paths])
        published = {row["depth"]: row for row in outcome["published"][table.key]}
        keys = ["mse"] if table is demo.FIFTEEN_ROWS else ["mse_normalized", "l1_normalized"]
        rows = outcome["rows"]
        ratios = {k: [row["device"][k] / published[row["depth"]][k] for row in rows] for k in keys}
        errors += [ratio - 1 for column in ratios.values() for ratio in column]
        if table is demo.FIFTEEN_ROWS:
            score.mean_ratio = sum(ratios["mse"]) / len(rows)
        if table is demo.WITH_ADD:
            score.off_by_n = [row["device"]["off_by_n"] for row in rows]
    score.rms = math.sqrt(sum(e * e for e in errors) / len(errors))


def rank(target: str, rules: list[str], values_only: bool) -> list[Score]:
    """All alternatives of the rules, best first within each rule."""
    known = alternatives(target)
    unknown = [rule for rule in rules if rule not in known]
    if unknown:
        raise SystemExit(f"{target} has no alternatives for {', '.join(unknown)}; it has them for {', '.join(known)}")
    published = [value for value in values() if target in value.targets]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        tables = [] if values_only else list(prepare_tables(folder))
        scores = []
        wanted = [(rule, other) for rule in rules or known for other in known[rule][1]]
        for rule, other in tqdm(wanted, target, disable=None):
            score = Score(rule, other, other == known[rule][0])
            score_values(score, target, published)
            # The demo always runs host_exact itself, beside an alternative in which the device quantizes.
            if tables and (rule, other) != ("quantize_input", "host_exact"):
                score_tables(score, tables, folder)
            scores.append(score)
    return sorted(scores, key=lambda s: (s.rule, s.key()))


COLUMNS = ("values missed", "codes off", "rms of the tables", "mean MSE ratio", "off-by-N")


def render(scores: list[Score]) -> str:
    """The ranking as text."""
    lines = []
    for i, s in enumerate(scores):
        if i == 0 or s.rule != scores[i - 1].rule:
            lines += ["", f"  {s.rule:<20}" + "".join(f"{title:>19}" for title in COLUMNS)]
        cells = (
            str(len(s.missed)),
            str(s.code_error),
            "-" if s.rms is None else f"{s.rms:.1%}",
            "-" if s.mean_ratio is None else f"{s.mean_ratio:.3f}",
            "-" if s.off_by_n is None else "/".join(map(str, s.off_by_n)),
        )
        missed = f"  {', '.join(s.missed)}" if s.missed else ""
        mark = "*" if s.chosen else " "
        lines.append(f"{mark} {s.alternative:<20}" + "".join(f"{cell:>19}" for cell in cells) + missed)
    return "\n".join([*lines, "", "* the choice of the shipped spec; off-by-N is published as 2/4/6/7"])


def main(arguments: list[str] | None = None) -> int:
    """Prints the ranking."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--target", default="htp_v75")
    parser.add_argument("--rules", nargs="*", default=[], help="rules to rank (default: all with alternatives)")
    parser.add_argument("--values-only", action="store_true", help="leave the tables out: seconds, and no torch")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    scores = rank(options.target, options.rules, options.values_only)
    result: list[dict[str, Any]] = [asdict(s) for s in scores]
    print(json.dumps(result, indent=1) if options.json else render(scores))
    return 0


if __name__ == "__main__":
    sys.exit(main())
