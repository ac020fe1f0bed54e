"""The ranking of alternatives: the shipped choices miss no published value, and those that are called refuted do."""

from __future__ import annotations

import pytest
from rank_htp_alternatives import alternatives, rank

REFUTED = {
    ("quantize_input", "host_exact"),
    ("quantize_input", "fp16_half_even"),
    ("Gemm", "drop8"),
    ("MatMul", "drop8"),
    ("Conv", "m12_keep16"),
    ("Gemm", "m12_keep16"),
    ("MatMul", "m12_keep16"),
}


@pytest.fixture(scope="module")
def scores():
    return rank("htp_v75", [], values_only=True)


def test_every_alternative_is_ranked_once(scores):
    known = alternatives("htp_v75")
    every = sorted((rule, name) for rule, (_, names) in known.items() for name in names)
    assert sorted((s.rule, s.alternative) for s in scores) == every
    assert {s.rule: s.alternative for s in scores if s.chosen} == {r: choice for r, (choice, _) in known.items()}


def test_published_values_refute_what_they_are_said_to_refute(scores):
    missed = {(s.rule, s.alternative): s.missed for s in scores}
    assert {key for key, ids in missed.items() if ids} == REFUTED, missed
    assert all(s.code_error > 0 for s in scores if s.missed)


def test_a_rule_without_alternatives_cannot_be_ranked():
    with pytest.raises(SystemExit, match="Relu"):
        rank("htp_v75", ["Relu"], values_only=True)
