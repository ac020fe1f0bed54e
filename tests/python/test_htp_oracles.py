"""`htp_v75` against second implementations of its arithmetic, bit for bit.

The oracles follow the published description of each rule in exact arithmetic: integers, fractions, and multiple
precision for transcendental functions. Every code of a unary operator and every pair of codes of a binary one is
compared, under encodings that put many results on ties.
"""

from fractions import Fraction

import mpmath
import numpy as np
import pytest
from one_node import (
    HALF,
    Constant,
    Grid,
    half_even,
    half_up,
    half_up_of_products,
    half_up_of_sums,
    one_node,
    run_codes,
    significant,
    truncated,
)

TARGET = "htp_v75"

# (a, b, y).
PAIRS = {
    "powers of two": (Grid(2**-4, 128), Grid(2**-5, 0), Grid(2**-3, 100)),
    "zero points at the ends": (Grid(0.02, 0), Grid(0.013, 255), Grid(0.031, 255)),
    "same grid": (Grid(0.05, 7), Grid(0.05, 7), Grid(0.05, 7)),
    "signed": (Grid(0.03, -128, "int8"), Grid(0.05, 127, "int8"), Grid(0.06, 3, "int8")),
    "multipliers on ties": (Grid(3 * 2**-13, 11), Grid((2**12 + 1) * 2**-13, 120), Grid(1.0, 90)),
    "far apart": (Grid(1e-4, 20), Grid(0.9, 200), Grid(0.7, 130)),
    "odd halves": (Grid(0.5, 128), Grid(1.5, 128), Grid(1.0, 128)),
}


def run_pairs(op: str, a: Grid, b: Grid, y: Grid, **options) -> np.ndarray:
    model = one_node(op, [(a, [256, 1]), (b, [1, 256])], y)
    return run_codes(model, {"a": a.codes()[:, None], "b": b.codes()[None, :]}, target=TARGET, **options)


def affine(ra: Fraction, a: Grid, rb: Fraction, b: Grid, offset: Fraction) -> np.ndarray:
    """Raw codes times multipliers plus an offset, rounded half up."""
    codes = [range(g.low, g.high + 1) for g in (a, b)]
    return half_up_of_sums([q * ra for q in codes[0]], [q * rb + offset for q in codes[1]])


def add_a1(a: Grid, b: Grid, y: Grid) -> np.ndarray:
    big, small = a.s / y.s, b.s / y.s
    first = significant(big, 12)
    return affine(first, a, significant(b.s / a.s, 12) * first, b, y.zero - a.zero * big - b.zero * small)


def add_a2(a: Grid, b: Grid, y: Grid, sign: int = 1) -> np.ndarray:
    big, small, one = a.s / y.s, sign * b.s / y.s, 2**12
    offset = half_even((y.zero - a.zero * big - b.zero * small) * one)
    ra, rb = half_even(big * one), half_even(small * one)
    return affine(Fraction(ra, one), a, Fraction(rb, one), b, Fraction(offset, one))


def add_a3(a: Grid, b: Grid, y: Grid) -> np.ndarray:
    big, small = a.s / y.s, b.s / y.s
    return affine(significant(big, 12), a, significant(small, 12), b, y.zero - a.zero * big - b.zero * small)


def add_on_grid(a: Grid, b: Grid, y: Grid, step: Fraction) -> np.ndarray:
    """Both operands rounded to multiples of `step`, then one exact rescale."""
    u, v = ([half_even(r / step) * step / y.s for r in g.reals()] for g in (a, b))
    return half_up_of_sums(u, [r + y.zero for r in v])


def bounds(g: Grid) -> tuple[Fraction, Fraction]:
    return g.real(g.low), g.real(g.high)


def add_a4(a: Grid, b: Grid, y: Grid) -> np.ndarray:
    (min_a, max_a), (min_b, max_b) = bounds(a), bounds(b)
    return add_on_grid(a, b, y, (max_a + max_b - min_a - min_b) / (2**13 - 1))


def add_a6(a: Grid, b: Grid, y: Grid) -> np.ndarray:
    (min_a, max_a), (min_b, max_b) = bounds(a), bounds(b)
    return add_on_grid(a, b, y, (max(max_a, max_b) - min(min_a, min_b)) / (2**13 - 1))


def add_of_products(a: Grid, b: Grid, y: Grid, rounding) -> np.ndarray:
    """Each product rounded to 6 fraction bits."""
    f, g = ([Fraction(rounding(r / y.s * 64), 64) for r in grid.reals()] for grid in (a, b))
    return half_up_of_sums(f, [v + y.zero for v in g])


def add_a8(a: Grid, b: Grid, y: Grid) -> np.ndarray:
    return half_up_of_sums([r / y.s for r in a.reals()], [r / y.s + y.zero for r in b.reals()])


ADDS = {
    "A1": add_a1,
    "A2": add_a2,
    "A3": add_a3,
    "A4": add_a4,
    "A5": lambda a, b, y: add_of_products(a, b, y, truncated),
    "A6": add_a6,
    "A7": lambda a, b, y: add_of_products(a, b, y, half_up),
    "A8": add_a8,
}


@pytest.mark.parametrize("grids", PAIRS.values(), ids=PAIRS)
@pytest.mark.parametrize("rule", ADDS)
def test_add_on_all_pairs(rule: str, grids: tuple[Grid, Grid, Grid]) -> None:
    got = run_pairs("Add", *grids, assume={"Add.rule": rule})
    np.testing.assert_array_equal(got, grids[2].saturate(ADDS[rule](*grids)))


def test_add_is_a2_unless_told() -> None:
    a, b, y = PAIRS["multipliers on ties"]
    np.testing.assert_array_equal(run_pairs("Add", a, b, y), y.saturate(add_a2(a, b, y)))


@pytest.mark.parametrize("grids", PAIRS.values(), ids=PAIRS)
def test_sub_on_all_pairs(grids: tuple[Grid, Grid, Grid]) -> None:
    np.testing.assert_array_equal(run_pairs("Sub", *grids), grids[2].saturate(add_a2(*grids, sign=-1)))


PRODUCTS = PAIRS | {
    "wide": (Grid(2**-4, 128), Grid(2**-3, 100), Grid(2**-1, 128)),
    "sixths": (Grid(5 / 1024, 128), Grid(7 / 1024, 100), Grid(30 / 1024, 128)),
    "wide sixths": (Grid(5 / 64, 128), Grid(7 / 64, 100), Grid(210 / 64, 128)),
}


@pytest.mark.parametrize("grids", PRODUCTS.values(), ids=PRODUCTS)
def test_mul_on_all_pairs(grids: tuple[Grid, Grid, Grid]) -> None:
    a, b, y = grids
    expected = half_up_of_products([r / y.s for r in a.reals()], b.reals(), Fraction(y.zero))
    np.testing.assert_array_equal(run_pairs("Mul", a, b, y), y.saturate(expected))


@pytest.mark.parametrize("grids", PRODUCTS.values(), ids=PRODUCTS)
def test_div_on_all_pairs(grids: tuple[Grid, Grid, Grid]) -> None:
    """Correctly rounded; the sign of the dividend decides where the divisor is zero."""
    a, b, y = grids
    top = [int(q) - a.zero for q in a.codes()]
    bottom = [int(q) - b.zero for q in b.codes()]
    ratio = a.s / (b.s * y.s)
    n, d = np.array(top, dtype=object)[:, None] * ratio.numerator, np.array(bottom, dtype=object) * ratio.denominator
    n, d = n * np.where(d < 0, -1, 1)[None, :], abs(d)[None, :]
    safe = np.where(d == 0, 1, d)
    rounded = (2 * (n + y.zero * safe) + safe) // (2 * safe)
    by_zero = np.where(np.array(top)[:, None] >= 0, y.high, y.low)
    np.testing.assert_array_equal(run_pairs("Div", a, b, y), y.saturate(np.where(d == 0, by_zero, rounded)))


@pytest.mark.parametrize("grids", PRODUCTS.values(), ids=PRODUCTS)
def test_prelu_on_all_pairs(grids: tuple[Grid, Grid, Grid]) -> None:
    x, slope, y = grids
    slope = Grid(slope.scale, 0, "int8")
    model = one_node("PRelu", [(x, [1, 256, 256]), Constant(slope.codes()[:, None], slope)], y)
    got = run_codes(model, {"a": np.broadcast_to(x.codes(), (1, 256, 256)).copy()}, target=TARGET)[0]
    scaled = half_up_of_products(slope.reals(), [r / y.s for r in x.reals()], Fraction(y.zero))
    kept = np.array([half_up(r / y.s + y.zero) for r in x.reals()], dtype=object)
    expected = np.where(x.codes().astype(int) >= x.zero, kept[None, :], scaled)
    np.testing.assert_array_equal(got, y.saturate(expected))


# (x, y).
UNARY = {
    "powers of two": (Grid(2**-5, 128), Grid(2**-4, 30)),
    "coarse": (Grid(0.25, 128), Grid(1.0, 100)),
    "zero points at the ends": (Grid(0.017, 255), Grid(0.023, 0)),
    "positive": (Grid(0.03, 0), Grid(0.021, 255)),
    "signed": (Grid(0.04, -3, "int8"), Grid(1 / 256, -128, "int8")),
    "unsigned to signed": (Grid(0.05, 100), Grid(2**-7, 0, "int8")),
    "sixths": (Grid(5 / 64, 128), Grid(30 / 64, 77)),
}
# The halves of tenths and thirds that float32 attributes do not hold.
SLOPE = Fraction(float(np.float32(0.1)))
ALPHA, BETA = Fraction(float(np.float32(0.2))), Fraction(float(np.float32(0.45)))


def clamp(v: Fraction, low: Fraction, high: Fraction) -> Fraction:
    return min(max(v, low), high)


RATIONAL = {
    "Relu": ({}, [], lambda x: max(x, Fraction(0))),
    "LeakyRelu": ({"alpha": 0.1}, [], lambda x: x if x >= 0 else x * SLOPE),
    "LeakyRelu by a power of two": ({"alpha": 0.25}, [], lambda x: x if x >= 0 else x / 4),
    "HardSwish": ({}, [], lambda x: x * clamp(x / 6 + HALF, Fraction(0), Fraction(1))),
    "HardSigmoid": ({"alpha": 0.2, "beta": 0.45}, [], lambda x: clamp(x * ALPHA + BETA, Fraction(0), Fraction(1))),
    "HardSigmoid by a power of two": (
        {"alpha": 0.125, "beta": 0.5},
        [],
        lambda x: clamp(x / 8 + HALF, Fraction(0), Fraction(1)),
    ),
    "Clip": ({}, [-1.21875, 2.03125], lambda x: clamp(x, Fraction(-39, 32), Fraction(65, 32))),
    "Clip to the positive": ({}, [0.0, 6.0], lambda x: clamp(x, Fraction(0), Fraction(6))),
}


@pytest.mark.parametrize("grids", UNARY.values(), ids=UNARY)
@pytest.mark.parametrize("case", RATIONAL)
def test_rational_functions_are_correctly_rounded(case: str, grids: tuple[Grid, Grid]) -> None:
    x, y = grids
    attributes, scalars, function = RATIONAL[case]
    constants = [Constant(np.float32(v)) for v in scalars]
    model = one_node(case.split()[0], [(x, [256]), *constants], y, attributes=attributes)
    expected = [half_up(function(r) / y.s + y.zero) for r in x.reals()]
    np.testing.assert_array_equal(run_codes(model, {"a": x.codes()}, target=TARGET), y.saturate(expected))


TRANSCENDENTAL = {
    "Sigmoid": lambda x: 1 / (1 + mpmath.exp(-x)),
    "Tanh": mpmath.tanh,
    "Erf": mpmath.erf,
    "Exp": mpmath.exp,
    "Gelu": lambda x: x * (1 + mpmath.erf(x / mpmath.sqrt(2))) / 2,
}
STEEP = {
    "sigmoid over 0..1": (Grid(0.06, 128), Grid(1 / 256, 0)),
    "tie at zero": (Grid(0.06, 128), Grid(1.0, 100)),
    "tie at one": (Grid(0.02, 200), Grid(2.0, 100)),
}


def rounded_real(v: mpmath.mpf, y: Grid) -> int:
    """A real of many digits on a grid, half up.

    A value that double precision does not tell from a tie is taken for the tie: Gelu(x) for x above 8 is less than x by
    1e-16 of it, and a table made in double precision holds x.
    """
    scaled = v * y.s.denominator / y.s.numerator
    exact = scaled + y.zero + mpmath.mpf(0.5)
    nearest = mpmath.nint(exact)
    return int(nearest if abs(exact - nearest) <= abs(scaled) * mpmath.mpf(2) ** -52 else mpmath.floor(exact))


@pytest.mark.parametrize("grids", (UNARY | STEEP).values(), ids=UNARY | STEEP)
@pytest.mark.parametrize("op", TRANSCENDENTAL)
def test_transcendental_functions_are_correctly_rounded(op: str, grids: tuple[Grid, Grid]) -> None:
    x, y = grids
    with mpmath.workdps(60):
        reals = [mpmath.mpf(r.numerator) / r.denominator for r in x.reals()]
        expected = [rounded_real(TRANSCENDENTAL[op](r), y) for r in reals]
    got = run_codes(one_node(op, [(x, [256])], y), {"a": x.codes()}, target=TARGET)
    np.testing.assert_array_equal(got, y.saturate(expected))


@pytest.mark.parametrize(
    ("rule", "grids"),
    [
        ("A5", (Grid(6.125, 148), Grid(0.078125, 205), Grid(1.375, 82))),
        ("A8", (Grid(0.21875, 154), Grid(0.28125, 191), Grid(0.1875, 203))),
    ],
)
def test_add_on_ties_behind_inexact_ratios(rule: str, grids: tuple[Grid, Grid, Grid]) -> None:
    test_add_on_all_pairs(rule, grids)


def test_mul_on_ties_behind_inexact_ratios() -> None:
    test_mul_on_all_pairs((Grid(0.375, 10), Grid(1.3125, 49), Grid(24.5, 26)))


@pytest.mark.parametrize("op", ["Add", "Sub", "Mul"])
def test_16_bits(op: str, rng: np.random.Generator) -> None:
    """Add and Sub keep the multipliers of 12 fraction bits."""
    a, b, y = Grid(3.1e-4, 30000, "uint16"), Grid(2e-4, 32768, "uint16"), Grid(5e-4, 31000, "uint16")
    y = Grid(2e-3, 31000, "uint16") if op == "Mul" else y
    left, right = (rng.integers(0, 65536, 4000) for _ in "ab")
    if op == "Mul":
        expected = [half_up(a.real(p) * b.real(q) / y.s + y.zero) for p, q in zip(left, right, strict=True)]
    else:
        sign, one = (1 if op == "Add" else -1), 2**12
        ra, rb = half_even(a.s / y.s * one), half_even(sign * b.s / y.s * one)
        offset = half_even((y.zero - a.zero * a.s / y.s - sign * b.zero * b.s / y.s) * one)
        expected = [
            (2 * (int(p) * ra + int(q) * rb + offset) + one) // (2 * one) for p, q in zip(left, right, strict=True)
        ]
    feeds = {"a": left.astype(np.uint16), "b": right.astype(np.uint16)}
    got = run_codes(one_node(op, [(a, [4000]), (b, [4000])], y), feeds, target=TARGET)
    np.testing.assert_array_equal(got, y.saturate(expected))
