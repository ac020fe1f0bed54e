"""`htp_v75` against second implementations: sums of products, pools, changes of encoding, quantizers.

As `test_htp_oracles`: exact integers and fractions that follow the published description of each rule.
"""

from fractions import Fraction

import numpy as np
import onnx
import pytest
from numpy.lib.stride_tricks import sliding_window_view
from one_node import Constant, Grid, half_even, half_up, one_node, run_codes, significant
from onnx import TensorProto, helper
from small_models import constant, value

import nputwin

TARGET = "htp_v75"
INT32 = (-(2**31), 2**31 - 1)


class Sums:
    """Constant weights as the multiplier sees them, with the scale of each output channel."""

    def __init__(self, weight: Constant, x: Grid) -> None:
        codes = weight.array.astype(np.int64) - weight.grid.zero
        channels = codes.shape[0]
        scales = [weight.grid.s] * channels
        if weight.scales is not None:
            scales = [Fraction(float(np.float32(s))) for s in weight.scales]
        unsigned = weight.grid.dtype == "uint8"
        if weight.grid.zero != (128 if unsigned else 0):
            # Re-quantized to symmetric signed codes: the largest of the data becomes 127.
            top = int(abs(codes).max())
            rounded = [half_even(Fraction(int(c) * 127, top)) for c in codes.ravel()]
            codes = np.array(rounded).reshape(codes.shape)
            scales = [s * top / 127 for s in scales]
        self.codes = codes
        self.units = [x.s * s for s in scales]

    def bias(self, reals: np.ndarray) -> np.ndarray:
        """A real bias in units of the accumulator, 32 bits."""
        codes = [half_even(Fraction(float(b)) / unit) for b, unit in zip(reals, self.units, strict=True)]
        return np.clip(np.array(codes, dtype=object), *INT32).astype(np.int64)

    def rescale(self, sums: np.ndarray, y: Grid, axis: int) -> np.ndarray:
        """Sums times 12-bit multipliers, rounded half up, and the zero point."""
        sums = np.moveaxis(sums, axis, 0).astype(object)
        m = [significant(unit / y.s, 12) for unit in self.units]
        scaled = [
            (2 * part * f.numerator + f.denominator) // (2 * f.denominator) for part, f in zip(sums, m, strict=True)
        ]
        return y.saturate(np.moveaxis(np.stack(scaled) + y.zero, 0, axis))


def dropped(v: np.ndarray) -> np.ndarray:
    """Without the low 8 bits: a floor."""
    return v // 256 * 256


def convolve(x: np.ndarray, w: np.ndarray, pads: int, stride: int, group: int) -> np.ndarray:
    """int64; centred codes, so padding is zero."""
    padded = np.pad(x, ((0, 0), (0, 0), (pads, pads), (pads, pads)))
    windows = sliding_window_view(padded, w.shape[2:], (2, 3))[:, :, ::stride, ::stride]
    inputs, outputs = w.shape[1], w.shape[0] // group
    parts = [
        np.einsum("nchwij,ocij->nohw", windows[:, g * inputs :][:, :inputs], w[g * outputs :][:outputs])
        for g in range(group)
    ]
    return np.concatenate(parts, 1)


def transposed(x: np.ndarray, w: np.ndarray, stride: int) -> np.ndarray:
    """ConvTranspose without padding; `w` is (inputs, outputs, height, width)."""
    n, _, height, width = x.shape
    out = np.zeros((n, w.shape[1], (height - 1) * stride + w.shape[2], (width - 1) * stride + w.shape[3]), np.int64)
    for i, j in np.ndindex(w.shape[2:]):
        part = np.einsum("nchw,co->nohw", x, w[:, :, i, j])
        out[:, :, i : i + (height - 1) * stride + 1 : stride, j : j + (width - 1) * stride + 1 : stride] += part
    return out


# Near 101·2^-10, less and more by 2^-14 of it: 12 bits hold 101·2^-10 only, whose products lie on ties.
NEAR = [101 * 2**-10 * (1 + sign * 2**-14) for sign in (-1, 1)]
# (x, w, scales per channel, y).
EIGHT_BITS = {
    "powers of two": (Grid(2**-4, 128), Grid(2**-3, 0, "int8"), None, Grid(2**-1, 100)),
    "12 bits from below": (Grid(NEAR[0], 3), Grid(1.0, 0, "int8"), None, Grid(8.0, 20)),
    "12 bits from above": (Grid(NEAR[1], 250), Grid(1.0, 0, "int8"), None, Grid(8.0, 230)),
    "per channel": (Grid(0.021, 255), Grid(1.0, 0, "int8"), (0.011, 2**-6, 0.3, 3 * 2**-9), Grid(0.37, 255)),
    "signed": (Grid(2**-4, -128, "int8"), Grid(3 * 2**-5, 0, "int8"), None, Grid(2**-1, -128, "int8")),
    "unsigned weights around 128": (Grid(2**-4, 9), Grid(2**-3, 128), None, Grid(2**-1, 100)),
    "weights around a zero point": (Grid(2**-4, 128), Grid(2**-3, 1), None, Grid(0.4, 100)),
    "weights around the last code": (Grid(0.05, 128), Grid(0.011, 255), None, Grid(0.4, 100)),
    "signed weights around 5": (Grid(0.05, 128), Grid(0.011, 5, "int8"), None, Grid(0.4, 100)),
}
SIXTEEN_BITS = {
    "powers of two": (Grid(2**-12, 32768, "uint16"), Grid(2**-6, 0, "int8"), None, Grid(2**-9, 30000, "uint16")),
    "usual": (Grid(3e-4, 32768, "uint16"), Grid(0.01, 0, "int8"), None, Grid(1.7e-3, 100, "uint16")),
    "per channel": (
        Grid(3e-4, 9, "uint16"),
        Grid(1.0, 0, "int8"),
        (0.011, 2**-6, 0.3, 3 * 2**-9),
        Grid(0.1, 3, "uint16"),
    ),
    "signed": (Grid(2**-12, 0, "int16"), Grid(2**-6, 0, "int8"), None, Grid(2**-9, -7, "int16")),
    "weights around a zero point": (Grid(3e-4, 32768, "uint16"), Grid(0.04, 1), None, Grid(2e-2, 30000, "uint16")),
}
MACS = EIGHT_BITS | {f"16 bits, {name}": case for name, case in SIXTEEN_BITS.items()}


def weight_codes(rng: np.random.Generator, shape: list[int], grid: Grid, reach: int | None = None) -> np.ndarray:
    """Random codes; every output channel has the code farthest from the zero point."""
    low, high = (-127 if grid.dtype == "int8" else 0), grid.high
    if reach is not None and grid.zero in (0, 128):
        low, high = grid.zero - reach, grid.zero + reach
    codes = rng.integers(low, high + 1, shape)
    codes.reshape(shape[0], -1)[:, 0] = low if grid.zero - low >= high - grid.zero else high
    return codes


def codes_of(rng: np.random.Generator, grid: Grid, shape: list[int]) -> np.ndarray:
    return rng.integers(grid.low, grid.high + 1, shape).astype(grid.dtype)


def real_bias(rng: np.random.Generator, sums: Sums, size: int) -> np.ndarray:
    """A real bias; under powers of two half of its elements lie on ties."""
    steps = rng.integers(-4000, 4000, len(sums.units)) * size + np.array([0.5, 0.0, -0.5, 0.25])[: len(sums.units)]
    return np.float32([float(s) * float(u) for s, u in zip(steps, sums.units, strict=True)])


@pytest.mark.parametrize("bias", [False, True], ids=["", "bias"])
@pytest.mark.parametrize("group", [1, 4], ids=["dense", "depthwise"])
@pytest.mark.parametrize("case", MACS)
def test_conv(case: str, group: int, bias: bool, rng: np.random.Generator) -> None:
    x, w, scales, y = MACS[case]
    wide = x.high > 255
    weight = Constant(weight_codes(rng, [4, 4 // group, 3, 3], w, None if wide else 12), w, scales)
    sums = Sums(weight, x)
    operands = [(x, [2, 4, 17, 19]), weight]
    added = np.zeros(4, np.int64)
    if bias:
        reals = real_bias(rng, sums, 100 if wide else 1)
        operands.append(Constant(reals))
        added = sums.bias(reals)
    model = one_node("Conv", operands, y, attributes={"group": group, "pads": [1] * 4, "strides": [2, 2]})
    codes = codes_of(rng, x, [2, 4, 17, 19])
    acc, added = convolve(codes.astype(np.int64) - x.zero, sums.codes, 1, 2, group), added[None, :, None, None]
    total = dropped(acc) + dropped(added) if wide else acc + added
    np.testing.assert_array_equal(run_codes(model, {"a": codes}, target=TARGET), sums.rescale(total, y, 1))


@pytest.mark.parametrize("w", ["powers of two", "per channel"])
def test_conv_with_integer_bias(w: str, rng: np.random.Generator) -> None:
    """A bias that the file holds as 32-bit codes is added as it is."""
    x, w, scales, y = MACS[w]
    weight = Constant(weight_codes(rng, [4, 4, 1, 1], w, 12), w, scales)
    sums = Sums(weight, x)
    added = np.array([-3000, 1, 2**31 - 1, 77])
    bias = Constant(added, Grid(float(sums.units[0]), 0, "int32"), tuple(float(u) for u in sums.units))
    codes = codes_of(rng, x, [1, 4, 9, 9])
    acc = convolve(codes.astype(np.int64) - x.zero, sums.codes, 0, 1, 1)
    # 32 bits: the sum wraps.
    total = (acc + added[None, :, None, None] + 2**31) % 2**32 - 2**31
    got = run_codes(one_node("Conv", [(x, [1, 4, 9, 9]), weight, bias], y), {"a": codes}, target=TARGET)
    np.testing.assert_array_equal(got, sums.rescale(total, y, 1))


@pytest.mark.parametrize("case", [name for name in MACS if "channel" not in name])
def test_conv_transpose(case: str, rng: np.random.Generator) -> None:
    x, w, _, y = MACS[case]
    weight = Constant(weight_codes(rng, [4, 4, 3, 3], w, None if x.high > 255 else 12), w)
    sums = Sums(weight, x)
    codes = codes_of(rng, x, [1, 4, 7, 9])
    reals = real_bias(rng, sums, 10)
    acc, added = transposed(codes.astype(np.int64) - x.zero, sums.codes, 2), sums.bias(reals)[None, :, None, None]
    total = dropped(acc) + dropped(added) if x.high > 255 else acc + added
    model = one_node("ConvTranspose", [(x, [1, 4, 7, 9]), weight, Constant(reals)], y, attributes={"strides": [2, 2]})
    np.testing.assert_array_equal(run_codes(model, {"a": codes}, target=TARGET), sums.rescale(total, y, 1))


@pytest.mark.parametrize("case", MACS)
def test_gemm(case: str, rng: np.random.Generator) -> None:
    """With 16 bits the bias is in the sum whose low bits are dropped."""
    x, w, scales, y = MACS[case]
    weight = Constant(weight_codes(rng, [4, 24], w, None if x.high > 255 else 20), w, scales)
    sums = Sums(weight, x)
    reals, codes = real_bias(rng, sums, 1), codes_of(rng, x, [300, 24])
    total = (codes.astype(np.int64) - x.zero) @ sums.codes.T + sums.bias(reals)
    total = dropped(total) if x.high > 255 else total
    model = one_node("Gemm", [(x, [300, 24]), weight, Constant(reals)], y, attributes={"transB": 1})
    np.testing.assert_array_equal(run_codes(model, {"a": codes}, target=TARGET), sums.rescale(total, y, 1))


@pytest.mark.parametrize("case", [name for name in MACS if "channel" not in name])
def test_matmul_by_constant(case: str, rng: np.random.Generator) -> None:
    x, w, _, y = MACS[case]
    array = weight_codes(rng, [4, 24], w, None if x.high > 255 else 20)
    sums = Sums(Constant(array, w), x)
    codes = codes_of(rng, x, [300, 24])
    total = (codes.astype(np.int64) - x.zero) @ sums.codes.T
    total = dropped(total) if x.high > 255 else total
    model = one_node("MatMul", [(x, [300, 24]), Constant(array.T.copy(), w)], y)
    np.testing.assert_array_equal(run_codes(model, {"a": codes}, target=TARGET), sums.rescale(total, y, 1))


def test_matmul_of_two_activations(rng: np.random.Generator) -> None:
    a, b, y = Grid(2**-4, 101), Grid(2**-5, 30), Grid(2**-1, 128)
    left, right = codes_of(rng, a, [2, 40, 8]), codes_of(rng, b, [2, 8, 30])
    acc = (left.astype(np.int64) - a.zero) @ (right.astype(np.int64) - b.zero)
    got = run_codes(one_node("MatMul", [(a, [2, 40, 8]), (b, [2, 8, 30])], y), {"a": left, "b": right}, target=TARGET)
    m = significant(a.s * b.s / y.s, 12)
    np.testing.assert_array_equal(
        got, y.saturate([[[half_up(int(v) * m) + y.zero for v in r] for r in n] for n in acc])
    )


def test_bias_saturates_at_32_bits(rng: np.random.Generator) -> None:
    x, w, _, y = EIGHT_BITS["powers of two"]
    weight = Constant(np.zeros((4, 1, 1, 1)), w)
    reals = np.float32([1e9, -1e9, 2.0**24, 1.0])
    y = Grid(2.0**20, 128)
    expected = Sums(weight, x).rescale(Sums(weight, x).bias(reals)[None, :, None, None], y, 1)
    got = run_codes(
        one_node("Conv", [(x, [1, 1, 1, 1]), weight, Constant(reals)], y),
        {"a": np.full((1, 1, 1, 1), 128, np.uint8)},
        target=TARGET,
    )
    np.testing.assert_array_equal(got, expected)


# (x, y): halves, thirds and quarters of sums lie on ties.
POOLS = {
    "same grid": (Grid(0.03, 17), Grid(0.03, 17)),
    "powers of two": (Grid(2**-4, 128), Grid(2**-5, 0)),
    "sixths": (Grid(6 / 64, 128), Grid(4 / 64, 77)),
    "zero points at the ends": (Grid(0.02, 255), Grid(0.013, 255)),
    "signed": (Grid(0.25, -128, "int8"), Grid(0.5, -128, "int8")),
}


def rounded_means(sums: np.ndarray, counts: np.ndarray, x: Grid, y: Grid) -> np.ndarray:
    n, ratio = np.broadcast_to(counts, sums.shape).astype(object), x.s / y.s
    top, bottom = sums.astype(object) * ratio.numerator, n * ratio.denominator
    return y.saturate((2 * top + bottom) // (2 * bottom) + y.zero)


@pytest.mark.parametrize("include", [0, 1])
@pytest.mark.parametrize("kernel", [1, 2, 3])
@pytest.mark.parametrize("grids", POOLS.values(), ids=POOLS)
def test_average_pool(grids: tuple[Grid, Grid], kernel: int, include: int, rng: np.random.Generator) -> None:
    x, y = grids
    codes, pad = codes_of(rng, x, [2, 3, 14, 15]), kernel // 2
    ones = np.ones((1, 1, kernel, kernel), np.int64)
    centred = codes.astype(np.int64) - x.zero
    sums = convolve(centred.reshape(6, 1, 14, 15), ones, pad, 1, 1)
    counts = convolve(np.ones((6, 1, 14, 15), np.int64), ones, pad, 1, 1)
    expected = rounded_means(sums, np.array(kernel**2) if include else counts, x, y)
    attributes = {"kernel_shape": [kernel] * 2, "pads": [pad] * 4, "count_include_pad": include}
    got = run_codes(
        one_node("AveragePool", [(x, [2, 3, 14, 15])], y, attributes=attributes), {"a": codes}, target=TARGET
    )
    np.testing.assert_array_equal(got.reshape(expected.shape), expected)


@pytest.mark.parametrize("grids", POOLS.values(), ids=POOLS)
@pytest.mark.parametrize("op", ["GlobalAveragePool", "ReduceMean", "ReduceSum"])
def test_reductions(op: str, grids: tuple[Grid, Grid], rng: np.random.Generator) -> None:
    x, y = grids
    codes = codes_of(rng, x, [40, 20, 2, 3])
    sums = (codes.astype(np.int64) - x.zero).sum((2, 3), keepdims=True)
    axes = [] if op == "GlobalAveragePool" else [Constant(np.array([2, 3], np.int64))]
    model = one_node(op, [(x, [40, 20, 2, 3]), *axes], y)
    expected = rounded_means(sums, np.array(1 if op == "ReduceSum" else 6), x, y)
    np.testing.assert_array_equal(run_codes(model, {"a": codes}, target=TARGET), expected)


REQUANTIZE = POOLS | {
    "saturating": (Grid(0.5, 128), Grid(0.1, 128)),
    "halves": (Grid(0.5, 3), Grid(1.0, 128)),
    "other sign": (Grid(3 * 2**-8, 128), Grid(2**-6, 0, "int8")),
    "16 to 8 bits": (Grid(2**-12, 32768, "uint16"), Grid(2**-4, 128)),
    "16 to 8 bits, usual": (Grid(3.1e-4, 30000, "uint16"), Grid(0.08, 117)),
    "8 to 16 bits": (Grid(0.08, 117), Grid(3.1e-4, 30000, "uint16")),
}


def requantized(x: Grid, y: Grid) -> np.ndarray:
    return y.saturate([half_up(r / y.s + y.zero) for r in x.reals()])


@pytest.mark.parametrize(
    "grids",
    [pytest.param(g, id=name) for name, g in REQUANTIZE.items()],
)
def test_requantize_in_concat(grids: tuple[Grid, Grid]) -> None:
    x, y = grids
    count = len(x.codes())
    model = one_node("Concat", [(x, [count]), (y, [3])], y, attributes={"axis": 0})
    kept = np.array([y.low, y.zero, y.high]).astype(y.dtype)
    got = run_codes(model, {"a": x.codes(), "b": kept}, target=TARGET)
    np.testing.assert_array_equal(got, np.concatenate([requantized(x, y), kept]))


@pytest.mark.parametrize("grids", REQUANTIZE.values(), ids=REQUANTIZE)
def test_requantize_between_encodings(grids: tuple[Grid, Grid]) -> None:
    x, y = grids
    got = run_codes(one_node("Identity", [(x, [len(x.codes())])], y), {"a": x.codes()}, target=TARGET)
    np.testing.assert_array_equal(got, requantized(x, y))


def quantized_input(x: np.ndarray, grid: Grid, rule: str) -> np.ndarray:
    session = nputwin.Session(
        one_node("Relu", [(grid, [len(x)])], grid), target=TARGET, threads=1, assume={"quantize_input.rule": rule}
    )
    return session.dump({"a": x})["a"].codes


def ties(grid: Grid) -> np.ndarray:
    """Reals on every tie of the grid and beyond both ends, with their neighbours in float32."""
    steps = np.arange(grid.low - grid.zero - 40, grid.high - grid.zero + 40)[:: 1 if grid.high < 256 else 37] + 0.5
    on = np.float32(steps * float(grid.s))
    return np.concatenate([on, np.nextafter(on, np.float32(np.inf)), np.nextafter(on, np.float32(-np.inf))])


INPUTS = {
    "power of two": Grid(2**-5, 100),
    "usual": Grid(0.0187, 120),
    "zero": Grid(0.03, 0),
    "last": Grid(0.03, 255),
    "signed": Grid(0.011, -5, "int8"),
    "tiny": Grid(3e-5, 77),
    "large": Grid(900.0, 128),
    "reciprocal below the normal numbers of float16": Grid(40000.0, 128),
}
EXTREMES = np.float32([0.0, -0.0, 65504, 65519, 65520, -65520, 1e6, -1e6, 3e38, -3e38, 6e-8, -6e-8, 1e-45, 2**-25])


@pytest.mark.parametrize("grid", INPUTS.values(), ids=INPUTS)
def test_device_quantizes_inputs_in_float16(grid: Grid, rng: np.random.Generator) -> None:
    x = np.concatenate([ties(grid), EXTREMES, np.float32(rng.standard_normal(2000) * 50 * float(grid.s))])
    with np.errstate(over="ignore", under="ignore"):
        # A product of two float16 is exact in double precision, so it is rounded once.
        reciprocal = np.float64(np.float16(float(1 / grid.s)))
        quotients = np.float16(np.float64(np.float16(x)) * reciprocal)
    infinite = {np.inf: grid.high, -np.inf: grid.low}
    codes = [infinite[p] if abs(p) == np.inf else half_up(Fraction(p) + grid.zero) for p in quotients.tolist()]
    np.testing.assert_array_equal(quantized_input(x, grid, "device_fp16"), grid.saturate(codes))


SIXTEEN = {
    "power of two": Grid(2**-12, 32768, "uint16"),
    "usual": Grid(3.05e-4, 30000, "uint16"),
    "signed": Grid(2.5e-4, 0, "int16"),
}


@pytest.mark.parametrize("rule", ["device_fp16", "host_exact"])
@pytest.mark.parametrize("grid", SIXTEEN.values(), ids=SIXTEEN)
def test_inputs_of_16_bits_are_quantized_exactly(grid: Grid, rule: str) -> None:
    x = np.concatenate([ties(grid), EXTREMES])
    np.testing.assert_array_equal(quantized_input(x, grid, rule), on_the_host(x, grid))


def on_the_host(x: np.ndarray, grid: Grid) -> np.ndarray:
    """ONNX QuantizeLinear: a float32 quotient, half-even, then the zero point."""
    with np.errstate(over="ignore", under="ignore"):
        quotients = x / np.float32(grid.scale)
    codes = [half_even(Fraction(v)) + grid.zero for v in np.clip(quotients, -1e6, 1e6).astype(np.float64).tolist()]
    return grid.saturate(codes)


@pytest.mark.parametrize("grid", INPUTS.values(), ids=INPUTS)
def test_host_quantizes_inputs_as_onnx(grid: Grid) -> None:
    x = np.concatenate([ties(grid), EXTREMES])
    np.testing.assert_array_equal(quantized_input(x, grid, "host_exact"), on_the_host(x, grid))


def test_outputs_are_dequantized_in_float32() -> None:
    for grid in [*INPUTS.values(), *SIXTEEN.values()]:
        codes = grid.codes()
        graph = helper.make_graph(
            [
                helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
                helper.make_node("DequantizeLinear", ["q", "s", "z"], ["y"]),
            ],
            "g",
            [value("x", [len(codes)])],
            [value("y", None, TensorProto.FLOAT)],
            [constant("s", np.float32(grid.scale)), constant("z", np.array(grid.zero, grid.dtype))],
        )
        model: onnx.ModelProto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
        centred = np.float32(codes.astype(np.int64) - grid.zero)
        session = nputwin.Session(model, target=TARGET, assume={"quantize_input.rule": "host_exact"})
        (got,) = session.run(None, {"x": centred * np.float32(grid.scale)})
        np.testing.assert_array_equal(got, centred * np.float32(grid.scale))


@pytest.mark.parametrize("op", ["AveragePool", "GlobalAveragePool", "ReduceMean", "ReduceSum"])
def test_means_on_ties_behind_inexact_ratios(op: str, rng: np.random.Generator) -> None:
    grids = (Grid(1.53125, 92), Grid(0.1875, 4))
    if op == "ReduceSum":
        grids = (Grid(0.171875, 173), Grid(0.3125, 222))
    for _ in range(8):
        if op == "AveragePool":
            test_average_pool(grids, 2, 0, rng)
        else:
            test_reductions(op, grids, rng)


@pytest.mark.parametrize("grid", INPUTS.values(), ids=INPUTS)
def test_float_inside_a_graph_is_quantized_half_up(grid: Grid) -> None:
    """An operator in float before a quantizer: a float32 reciprocal and product, half up with the zero point inside."""
    x = Grid(grid.scale * 0.37, 117)
    nodes = one_node("Neg", [(x, [256])], grid)
    reals = -(np.float32(x.codes().astype(np.int64) - x.zero) * np.float32(x.scale))
    quotients = reals * np.float32(1 / float(grid.s))
    expected = grid.saturate([half_up(Fraction(q) + grid.zero) for q in quotients.astype(np.float64).tolist()])
    session = nputwin.Session(nodes, target=TARGET, threads=1)
    assert [node.mode for node in session.report([[256]]).nodes] == ["float"]
    np.testing.assert_array_equal(session.run_quantized(None, {"a": x.codes()})[0], expected)


def test_encodings_of_a_float_model_give_the_same_sums(rng: np.random.Generator) -> None:
    """Scales of double precision beside the model; weights and bias quantized here, from reals on ties."""
    scale = 0.0977
    x, w, y = Grid(2**-5, 120), Grid(2**-6, 0, "int8"), Grid(scale, 90)
    reals = np.float32((rng.integers(-127, 127, (4, 6)) + rng.choice([0.0, 0.5], (4, 6))) * 2**-6)
    codes = np.clip(np.rint(reals / np.float32(2**-6)), -128, 127).astype(np.int64)
    bias = np.float32(rng.integers(-500, 500, 4) * 2**-11 + 2**-12)
    graph = helper.make_graph(
        [helper.make_node("Gemm", ["x", "w", "b"], ["y"], "node", transB=1)],
        "g",
        [value("x", [256, 6])],
        [value("y", [256, 4])],
        [constant("w", reals), constant("b", bias)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)

    def entry(name: str, scale: float, offset: int, *, symmetric: bool) -> dict:
        return {
            "name": name, "dtype": "INT", "bw": 8, "enc_type": "PER_TENSOR", "is_sym": symmetric,
            "scale": [scale], "offset": [offset],
        }  # fmt: skip

    encodings = {
        "version": "1.0.0",
        "activation_encodings": [
            entry("x", 2**-5, -120, symmetric=False),
            entry("y", scale, -90, symmetric=False),
        ],
        "param_encodings": [entry("w", 2**-6, -128, symmetric=True)],
    }
    feed = codes_of(rng, x, [256, 6])
    session = nputwin.Session(model, target=TARGET, encodings=encodings, threads=1)
    added = np.array([half_even(Fraction(float(b)) / (x.s * w.s)) for b in bias])
    acc = (feed.astype(np.int64) - x.zero) @ codes.T + added
    m = significant(x.s * w.s / Fraction(scale), 12)
    expected = y.saturate([[half_up(int(v) * m) + y.zero for v in row] for row in acc])
    np.testing.assert_array_equal(session.run_quantized(None, {"x": feed})[0], expected)
