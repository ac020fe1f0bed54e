"""Selects the golden vectors that ship in `tests/vectors` from the full set.

    python tests/select_vectors.py ../shared/vectors tests/vectors

Of every file of a family a few cases are taken: ties and exhaustive inputs first (random inputs do not find rounding
errors), then saturation and extreme zero points, then whatever tags the selection lacks; among equals the smaller. The
number of cases per file is the largest for which everything fits the budget. The same input gives the same bytes.
"""

from __future__ import annotations

import argparse
import io
import json
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

Case = dict[str, Any]

# Beginnings of tags and what a case gains by them. A tag that is not listed counts one.
WEIGHTS = {
    "tie": 8,
    "pot_ties": 8,
    "near_ties": 8,
    "exhaustive": 6,
    "saturat": 3,
    "sat": 3,
    "zp_extreme": 3,
    "tie_pc": 8,
}
# A case that packs to more than this is taken only where its file has no smaller one.
LARGE = 24_000
MOST_CASES = 6


@dataclass(frozen=True)
class Family:
    """A family and the arrays of each of its cases, packed."""

    head: dict[str, Any]
    cases: list[Case]
    arrays: dict[str, dict[str, np.ndarray]]
    sizes: dict[str, int]


def arrays_of(case: Case) -> list[str]:
    return [operand["array"] for operand in [*case["inputs"], *case["outputs"]]]


def packed(arrays: dict[str, Any]) -> bytes:
    """An npz archive; it holds no dates, so equal arrays give equal bytes."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()


def read(folder: Path) -> Family:
    document = json.loads((folder / "cases.json").read_text())
    cases = document.pop("cases")
    arrays, sizes = {}, {}
    for file in sorted({case["file"] for case in cases}):
        with np.load(folder / file) as archive:
            for case in (c for c in cases if c["file"] == file):
                arrays[case["id"]] = {name: archive[name] for name in arrays_of(case)}
                sizes[case["id"]] = len(packed(arrays[case["id"]]))
    return Family(document, cases, arrays, sizes)


def weight(tag: str) -> int:
    return max((w for start, w in WEIGHTS.items() if tag.startswith(start)), default=1)


def chosen(family: Family, per_file: int) -> list[Case]:
    """At most `per_file` cases of each file, in the family's order."""
    out: set[str] = set()
    for file in sorted({case["file"] for case in family.cases}):
        left = [case for case in family.cases if case["file"] == file]
        if small := [case for case in left if family.sizes[case["id"]] <= LARGE]:
            left = small
        seen: set[str] = set()

        def gain(case: Case, seen: set[str] = seen) -> tuple[int, int]:
            fresh = set(case.get("tags", [])) - seen
            return sum(map(weight, fresh)), -family.sizes[case["id"]]

        for _ in range(min(per_file, len(left))):
            best = max(left, key=gain)
            left.remove(best)
            seen.update(best.get("tags", []))
            out.add(best["id"])
    return [case for case in family.cases if case["id"] in out]


def files_of(family: Family, cases: list[Case]) -> dict[str, bytes]:
    """The files of a family's selection by name."""
    document = {**family.head, "cases": cases}
    out = {"cases.json": (json.dumps(document, separators=(",", ":")) + "\n").encode()}
    for file in sorted({case["file"] for case in cases}):
        ids = [case["id"] for case in cases if case["file"] == file]
        out[file] = packed({name: array for i in ids for name, array in family.arrays[i].items()})
    return out


def select(families: dict[str, Family], budget: int) -> dict[str, dict[str, bytes]]:
    """The largest selection within the budget."""
    for per_file in range(MOST_CASES, 0, -1):
        files = {name: files_of(family, chosen(family, per_file)) for name, family in families.items()}
        if sum(len(data) for folder in files.values() for data in folder.values()) <= budget:
            return files
    raise SystemExit(f"one case of every file is more than {budget} bytes")


def main(arguments: Iterable[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Select the golden vectors that ship in tests/vectors.")
    parser.add_argument("source", type=Path, help="folder whose folders are families")
    parser.add_argument("destination", type=Path, help="where the selection goes; families there are replaced")
    parser.add_argument("--budget", type=int, default=4_900_000, help="bytes in all")
    parser.add_argument("--family", action="append", help="only this family; may be repeated")
    options = parser.parse_args(None if arguments is None else list(arguments))
    folders = sorted(path.parent for path in options.source.glob("*/cases.json"))
    folders = [path for path in folders if options.family is None or path.name in options.family]
    if not folders:
        raise SystemExit(f"no families in {options.source}")
    families = {path.name: read(path) for path in folders}
    for family in families.values():
        if not family.head.get("licence_of_source"):
            raise SystemExit(f"{family.head.get('family')} does not name the licence of its source: it cannot ship")
    for name, files in select(families, options.budget).items():
        folder = options.destination / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        for file, data in files.items():
            (folder / file).write_bytes(data)
        cases = json.loads(files["cases.json"])["cases"]
        print(f"{name:24} {len(cases):5} cases {sum(map(len, files.values())):9} bytes")


if __name__ == "__main__":
    main()
