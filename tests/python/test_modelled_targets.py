"""Modelled targets against second implementations in exact arithmetic, and what they refuse.

The oracles follow the published description of each step (integers and fractions), over all pairs of codes.
"""

from __future__ import annotations

from fractions import Fraction
from functools import cache
from math import floor, frexp

import numpy as np
import pytest
from one_node import HALF, Constant, Grid, half_even, half_up, one_node, run_codes

import nputwin


def i8(scale: float) -> Grid:
    return Grid(scale, 0, "int8")


POWERS = {
    "same grid": (i8(2**-4), i8(2**-4), i8(2**-4)),
    "finer sum": (i8(2**-4), i8(2**-6), i8(2**-5)),
    "coarser sum": (i8(2**-7), i8(2**-5), i8(2**-2)),
}
REALS = {
    "near": (i8(0.02), i8(0.031), i8(0.05)),
    "far apart": (i8(1e-3), i8(0.9), i8(0.7)),
    "powers of two": (i8(2**-4), i8(2**-5), i8(2**-3)),
    "second larger": (i8(0.0123), i8(0.0457), i8(0.0211)),
}


def exponent(v: Fraction) -> int:
    return frexp(float(v))[1]


@cache
def leading15(r: Fraction) -> Fraction:
    """The 15 leading bits of r."""
    step = Fraction(2) ** (exponent(r) - 15)
    return floor(r / step) * step


def rescale15(v: int, r: Fraction, rounding=half_up) -> int:
    """v times r with the 15 leading bits of r, and one shift."""
    return rounding(v * leading15(r))


def pairs(op: str, target: str, grids: tuple[Grid, Grid, Grid], **options) -> np.ndarray:
    a, b, y = grids
    model = one_node(op, [(a, [256, 1]), (b, [1, 256])], y)
    return run_codes(model, {"a": a.codes()[:, None], "b": b.codes()[None, :]}, target=target, **options)


def table(y: Grid, f) -> np.ndarray:
    """f on all pairs of int8 codes, saturated."""
    codes = range(-128, 128)
    return y.saturate([[f(a, b) for b in codes] for a in codes])


def bayes_common_grid(a: Grid, b: Grid, y: Grid) -> np.ndarray:
    step = max(a.s, b.s) / 2**14
    ma, mb = half_even(a.s / step), half_even(b.s / step)
    last = step / y.s
    return table(y, lambda p, q: rescale15(p * ma + q * mb, last))


def bayes_feature_and_sum(a: Grid, b: Grid, y: Grid) -> np.ndarray:
    step = max(a.s / 127, b.s / 2**25)
    ma, last = half_even(a.s / step), step / y.s
    second = {q: rescale15(q, b.s / step, floor) for q in range(-128, 128)}
    return table(y, lambda p, q: rescale15(p * ma + second[q], last))


def bayes_sub(a: Grid, b: Grid, y: Grid) -> np.ndarray:
    shift = min(23, floor_log2(32767 * a.s / b.s))
    mb = floor(HALF - b.s * Fraction(2) ** shift / a.s)
    last = a.s / Fraction(2) ** shift / y.s
    return table(y, lambda p, q: rescale15((p << shift) + q * mb, last))


def floor_log2(v: Fraction) -> int:
    k = v.numerator.bit_length() - v.denominator.bit_length()
    return k if Fraction(2) ** k <= v else k - 1


@pytest.mark.parametrize("grids", REALS.values(), ids=list(REALS))
@pytest.mark.parametrize("target", ["horizon_bayes", "horizon_nash_m", "horizon_nash_p"])
def test_bayes_adds_on_a_common_grid(target, grids):
    np.testing.assert_array_equal(pairs("Add", target, grids), bayes_common_grid(*grids))


@pytest.mark.parametrize("grids", REALS.values(), ids=list(REALS))
def test_bayes_adds_through_the_sum_input(grids):
    ours = pairs("Add", "horizon_bayes", grids, assume={"Add.rule": "feature_and_sum"})
    np.testing.assert_array_equal(ours, bayes_feature_and_sum(*grids))


@pytest.mark.parametrize("grids", REALS.values(), ids=list(REALS))
def test_bayes_subtracts_with_a_shift_and_a_factor(grids):
    np.testing.assert_array_equal(pairs("Sub", "horizon_bayes", grids), bayes_sub(*grids))


@pytest.mark.parametrize("grids", REALS.values(), ids=list(REALS))
def test_bayes_multiplies(grids):
    a, b, y = grids
    last = a.s * b.s / y.s
    expected = table(y, lambda p, q: rescale15(p * q, last))
    np.testing.assert_array_equal(pairs("Mul", "horizon_bayes", grids), expected)


@pytest.mark.parametrize(("x", "y"), [(i8(0.05), i8(0.05)), (i8(0.05), i8(0.031)), (i8(2**-4), i8(2**-2))])
def test_bayes_requantizes_and_copies_between_equal_scales(x, y):
    ours = run_codes(one_node("Identity", [(x, [256])], y), {"a": x.codes()}, target="horizon_bayes")
    expected = [q if x.s == y.s else rescale15(q, x.s / y.s) for q in range(-128, 128)]
    np.testing.assert_array_equal(ours, y.saturate(expected))


CONV = {
    "one_shift": lambda acc, r: rescale15(acc, r),
    "one_shift_floor": lambda acc, r: rescale15(acc, r, floor),
    # Two terms of 8-bit codes need 17 bits: nothing leaves before the multiplication.
    "first_shift_floor": lambda acc, r: rescale15(acc, r),
}


@pytest.mark.parametrize("alternative", CONV)
@pytest.mark.parametrize("scale", [2**-9, 0.0123, 3 * 2**-10])
def test_bayes_convolves(alternative, scale):
    x, y = i8(0.05), i8(0.05)
    weights = np.array([[1], [127]], dtype=np.int8).reshape(1, 2, 1, 1)
    model = one_node("Conv", [(x, [1, 2, 256, 256]), Constant(weights, i8(scale))], y)
    codes = np.stack(np.meshgrid(x.codes(), x.codes(), indexing="ij"))[None]
    ours = run_codes(model, {"a": codes}, target="horizon_bayes", assume={"Conv.rule": alternative})
    r = x.s * i8(scale).s / y.s
    expected = table(y, lambda p, q: CONV[alternative](p + 127 * q, r))
    np.testing.assert_array_equal(ours[0, 0], expected)


def test_bayes_drops_bits_before_the_multiplication_of_long_sums():
    terms = 4096
    x, y, scale = Grid(1e-3, 0, "int16"), Grid(1e-2, 0, "int16"), 1e-3
    weights = np.ones((1, terms, 1, 1), dtype=np.int8)
    model = one_node("Conv", [(x, [1, terms, 1, 64]), Constant(weights, i8(scale))], y)
    codes = np.random.default_rng(3).integers(-32768, 32768, (1, terms, 1, 64)).astype(np.int16)
    options = {"assume": {"Conv.rule": "first_shift_floor"}}
    ours = run_codes(model, {"a": codes}, target="horizon_bayes", **options)
    r, dropped = x.s * i8(scale).s / y.s, 16 + 7 + exponent(Fraction(terms)) + 15 - 47
    assert dropped > 0
    sums = codes.astype(np.int64).sum(axis=1).ravel()
    expected = y.saturate([rescale15(int(s) >> dropped, r * 2**dropped) for s in sums])
    np.testing.assert_array_equal(ours.ravel(), expected)
    assert (expected != y.saturate([rescale15(int(s), r) for s in sums])).any(), "the case shows the dropped bits"


@pytest.mark.parametrize("grids", POWERS.values(), ids=list(POWERS))
def test_bernoulli_shifts(grids):
    a, b, y = grids
    ra, rb, product = a.s / y.s, b.s / y.s, a.s * b.s / y.s
    expected = {
        "Add": table(y, lambda p, q: half_up(p * ra + q * rb)),
        "Sub": table(y, lambda p, q: half_up(p * ra - q * rb)),
        "Mul": table(y, lambda p, q: half_up(p * q * product)),
    }
    for op, codes in expected.items():
        np.testing.assert_array_equal(pairs(op, "horizon_bernoulli", grids), codes, err_msg=op)


@pytest.mark.parametrize("alternative", ["half_up", "floor"])
def test_bernoulli_convolves(alternative):
    x, w, y = i8(2**-4), i8(2**-6), i8(2**-3)
    weights = np.array([[3], [-5]], dtype=np.int8).reshape(1, 2, 1, 1)
    model = one_node("Conv", [(x, [1, 2, 256, 256]), Constant(weights, w)], y)
    codes = np.stack(np.meshgrid(x.codes(), x.codes(), indexing="ij"))[None]
    ours = run_codes(model, {"a": codes}, target="horizon_bernoulli", assume={"Conv.rule": alternative})
    rounding = half_up if alternative == "half_up" else floor
    ratio = x.s * w.s / y.s
    expected = table(y, lambda p, q: rounding((3 * p - 5 * q) * ratio))
    np.testing.assert_array_equal(ours[0, 0], expected)


def conv(x: Grid, w: Grid, y: Grid, scales: tuple[float, ...] | None = None):
    weights = np.ones((2, 2, 1, 1), dtype=w.dtype)
    return one_node("Conv", [(x, [1, 2, 4, 4]), Constant(weights, w, scales)], y)


I16 = Grid(1e-3, 0, "int16")
REFUSED = {
    "asymmetric activation": ("horizon_bayes", conv(Grid(0.1, 3, "int8"), i8(0.1), i8(0.1)), "symmetric"),
    "unsigned activation": ("horizon_nash_m", conv(Grid(0.1, 128), i8(0.1), i8(0.1)), "signed"),
    "int16 weights on Bayes": ("horizon_bayes", conv(i8(0.1), I16, i8(0.1)), "8 bits"),
    "int16 on both sides": ("horizon_nash_m", conv(I16, I16, I16), "both be int16"),
    "scales that are no powers of two": ("horizon_bernoulli", conv(i8(0.1), i8(0.25), i8(0.5)), "powers of two"),
    "16 bits on Bernoulli": ("horizon_bernoulli", conv(Grid(2**-8, 0, "int16"), i8(0.25), i8(0.5)), "8 bits"),
    "a left shift on Bernoulli": ("horizon_bernoulli", conv(i8(0.5), i8(0.5), i8(2**-4)), "right only"),
    "unsigned activation on eNPU": ("enpu_v6", conv(Grid(0.1, 128), i8(0.1), i8(0.1)), "symmetric and signed"),
    "per-channel weights on eNPU": ("enpu_v7", conv(i8(0.1), i8(0.1), i8(0.1), (0.1, 0.2)), "per tensor"),
    "per-channel weights on HTP v66": ("htp_v66", conv(Grid(0.1, 3), i8(0.1), i8(0.1), (0.1, 0.2)), "per tensor"),
    "16-bit second operand": (
        "htp_v69",
        one_node("MatMul", [(Grid(1e-3, 0, "uint16"), [4, 4]), (I16, [4, 4])], Grid(1e-3, 0, "uint16")),
        "needs v73",
    ),
}


@pytest.mark.parametrize(("target", "model", "reason"), REFUSED.values(), ids=list(REFUSED))
def test_what_a_chip_cannot_do_is_refused_with_the_reason(target, model, reason):
    with pytest.raises(nputwin.TargetUnsupportedError, match=reason):
        nputwin.Session(model, target=target).report()


ACCEPTED = {
    "per-channel on eNPU v7": ("enpu_v7_per_channel", conv(i8(0.1), i8(0.1), i8(0.1), (0.1, 0.2))),
    "per tensor on eNPU v6": ("enpu_v6", conv(i8(0.1), i8(0.1), i8(0.1))),
    "int16 activations on Nash": ("horizon_nash_m", conv(I16, i8(0.1), I16)),
    "int16 on both sides of the J6P": ("horizon_j6p", conv(I16, I16, I16)),
    "HTP v81": ("htp_v81", conv(Grid(0.1, 3), i8(0.1), Grid(0.2, 7), (0.1, 0.2))),
}


@pytest.mark.parametrize(("target", "model"), ACCEPTED.values(), ids=list(ACCEPTED))
def test_what_a_chip_can_do_runs_on_integers(target, model):
    x = nputwin.Session(model, target=target).get_inputs()[0]
    codes = np.arange(32).reshape(1, 2, 4, 4).astype("int16" if "16" in str(x.type) else "int8")
    assert run_codes(model, {x.name: codes.astype(model_dtype(model))}, target=target).shape == (1, 2, 4, 4)


def model_dtype(model) -> str:
    """Type of the codes behind the first quantizer."""
    zero = next(t for t in model.graph.initializer if t.name == "a_z")
    return {2: "uint8", 3: "int8", 4: "uint16", 5: "int16"}[zero.data_type]
