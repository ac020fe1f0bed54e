"""The tables that the importer declares have the slots, types and defaults of the published schema."""

import re
from typing import Any

import pytest
from conftest import ROOT

pytest.importorskip("ai_edge_litert", reason="ai-edge-litert is not installed")

from ai_edge_litert import schema_py_generated as schema

SOURCE = (ROOT / "rust/core/tflite/schema.rs").read_text()
TABLE = re.compile(r"^    (?:(\d+) )?(\w+)(?:<'a>)? \{(.*?)\}", re.MULTILINE | re.DOTALL)
NEAR = re.compile(r"(?<!@ )\b(\d+) (?:r#)?(\w+): (\w+) = ([\w.]+);")
FAR = re.compile(r"@ (\d+) (\w+): ([^;]+);")
FLAGS = {
    "i8": "Int8",
    "u8": "Uint8",
    "i32": "Int32",
    "u32": "Uint32",
    "u64": "Uint64",
    "f32": "Float32",
    "bool": "Bool",
}


def tables() -> dict[str, tuple[str | None, str]]:
    """Number in the union and body of each declared table."""
    body = SOURCE[SOURCE.index("type Tables") :]
    found = {name: (number or None, text) for number, name, text in TABLE.findall(body)}
    found.pop("Opaque")
    return found


def getter(table: str, field: str) -> str:
    """Source of the accessor that the published module has for a field."""
    import inspect

    name = "".join(part.capitalize() for part in field.split("_"))
    return inspect.getsource(getattr(getattr(schema, table), name))


def default(table: str, field: str) -> Any:
    """The published default, from an object without fields."""
    words = field.split("_")
    return getattr(getattr(schema, table + "T")(), words[0] + "".join(word.capitalize() for word in words[1:]))


@pytest.mark.parametrize("table", sorted(tables()))
def test_slots_types_and_defaults(table: str) -> None:
    number, body = tables()[table]
    if number is not None:
        assert getattr(schema.BuiltinOptions, table) == int(number)
    near, far = NEAR.findall(body), FAR.findall(body)
    assert len(near) + len(far) == body.count(";") > 0
    for slot, field, kind, value in near:
        source = getter(table, field)
        assert f"Offset({4 + 2 * int(slot)})" in source, field
        assert f"number_types.{FLAGS[kind]}Flags" in source, field
        assert float(default(table, field)) == float({"true": 1, "false": 0}.get(value, value)), field
    for slot, field, kind in far:
        source = getter(table, field)
        assert f"Offset({4 + 2 * int(slot)})" in source, field
        scalar = re.fullmatch(r"Vector<'a, (\w+)>", kind)
        assert scalar is None or f"number_types.{FLAGS.get(scalar[1], 'Int64')}Flags" in source, field


def test_operators_are_numbered_alike() -> None:
    listed = re.findall(r'"([A-Z0-9_]+)"', SOURCE[SOURCE.index("pub const OPERATORS") :])
    published = {k: v for k, v in vars(schema.BuiltinOperator).items() if isinstance(v, int)}
    assert {name: number for number, name in enumerate(listed)} == published
