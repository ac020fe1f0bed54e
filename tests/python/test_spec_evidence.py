"""What specs and their documentation say exists: tests, cases of golden vectors, pinned sources, targets."""

import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT

import nputwin

SPECS = sorted((ROOT / "specs").rglob("*.toml"))
# A commit, a release tag, a version of a package on PyPI, or a test of this repository.
PINNED = re.compile(r"@[0-9a-f]{7,40}\b|@v\d+\.\d+|\d+\.\d+\.\d+|tests/")


def entries(value: Any, path: str = "") -> Iterator[tuple[str, dict[str, str]]]:
    """Every evidence of a parsed spec, with where it stands."""
    if isinstance(value, dict):
        if "status" in value and "source" in value:
            yield path, value
        for key, inner in value.items():
            yield from entries(inner, f"{path}.{key}")
    elif isinstance(value, list):
        for i, inner in enumerate(value):
            yield from entries(inner, f"{path}[{i}]")


def operators() -> dict[str, set[str]]:
    """Files of cases by family, from the selection in `tests/vectors`."""
    out = {}
    for path in (ROOT / "tests/vectors").glob("*/cases.json"):
        document = json.loads(path.read_text())
        out[document["family"]] = {case["id"].split("/")[1] for case in document["cases"]}
    return out


def faults_of(evidence: dict[str, str], families: dict[str, set[str]]) -> Iterator[str]:
    status, source = evidence["status"], evidence["source"]
    files = re.findall(r"tests/[\w/]+\.(?:rs|py)", source)
    yield from (f"{file} does not exist" for file in files if not (ROOT / file).is_file())
    if status == "executed" and not files:
        yield f"executed, and names no test: {source}"
    if status == "source" and not PINNED.search(source):
        yield f"a source without commit or version: {source}"
    if "tests/conformance.rs" in source:
        cited = re.findall(r"(?:^|[ ,])([a-z][a-z0-9-]*)/([A-Z]\w*\*?)", source)
        if not cited:
            yield f"names no cases: {source}"
        for family, pattern in cited:
            if not any(fnmatchcase(name, pattern) for name in families.get(family, ())):
                yield f"no cases {family}/{pattern}"
    if live := re.search(r"(tests/python/test_litert_live\.py) (\w+)", source):
        text = (ROOT / live[1]).read_text()
        if f"def {live[2]}(" not in text:
            yield f"{live[1]} has no {live[2]}"


@pytest.mark.parametrize("path", SPECS, ids=lambda path: str(path.relative_to(ROOT / "specs")))
def test_evidence_names_what_exists(path: Path) -> None:
    families = operators()
    found = list(entries(tomllib.loads(path.read_text())))
    faults = [f"{where[1:]}: {fault}" for where, evidence in found for fault in faults_of(evidence, families)]
    assert not faults, "\n".join(faults)


def test_evidence_that_cites_nothing_is_found() -> None:
    families = {"a": {"Add"}}
    for status, source in (
        ("executed", "somebody said so"),
        ("executed", "tests/no_such_file.rs a/Add"),
        ("executed", "tests/conformance.rs a/Sub*"),
        ("executed", "tests/python/test_litert_live.py nothing"),
        ("source", "owner/project kernels.c"),
    ):
        assert list(faults_of({"status": status, "source": source}, families)), source
    assert not list(faults_of({"status": "executed", "source": "tests/conformance.rs a/Add*"}, families))


def test_the_table_of_targets_is_complete() -> None:
    text = (ROOT / "README.md").read_text()
    names = {name for target in nputwin.targets() for name in (target.name, *target.aliases)}
    assert len(names) > 30
    assert sorted(name for name in names if f"`{name}`" not in text) == []


def test_the_example_of_the_format_is_a_spec(tmp_path: Path) -> None:
    text = (ROOT / "specs/README.md").read_text()
    example = text.split("```toml\n", 2)[1].split("```")[0]
    path = tmp_path / "my_npu.toml"
    path.write_text(example)
    result = subprocess.run(
        [sys.executable, "-m", "nputwin", "spec", "lint", str(path)], capture_output=True, text=True, check=False
    )
    assert (result.returncode, "0 finding" in result.stdout) == (0, True), result.stdout + result.stderr
