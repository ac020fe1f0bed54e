"""`hexagon_nn_*` against second implementations in numpy, from XiaoMi/nnlib@df7ad3c1 (`hexagon/…`).

Integers are exact; each float32 step of the library is one numpy operation on float32. Functions name the lines that
they follow. V66 itself is also compared with the executed kernels (golden vectors); V60 and V65 have nothing else.
"""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from conftest import fresh_rng
from numpy.lib.stride_tricks import sliding_window_view
from one_node import Constant, Grid, one_node, run_codes, significant

import nputwin

F = np.float32
TARGETS = ["hexagon_nn_v60", "hexagon_nn_v65", "hexagon_nn_v66"]
CODES = np.arange(256, dtype=np.int64)


def nearest_f32(v: Fraction) -> np.float32:
    """An exact number as float32, ties to even."""
    return F(0) if v == 0 else F(float(np.sign(v) * significant(abs(v), 24)))


def div_255(v: np.float32) -> np.float32:
    """include/quantize.h flt_div_255: a product, then a fused multiply-add."""
    small = F(Fraction(0xFEFEFF, 2**56)) * v
    return nearest_f32(Fraction(float(v)) * Fraction(0x808081, 2**31) - Fraction(float(small)))


def to_nearest(v: np.float32) -> int:
    """include/quantize.h roundf_i32."""
    return int(F(v) + np.copysign(F(0.5), F(v)))


def getexp(v: np.float32) -> int:
    """include/quantize.h flt_getexp."""
    return int((np.array(v, F).view(np.uint32) >> 23) & 0xFF) - 126


def power2(e: int) -> np.float32:
    return F(2.0) ** F(e)


def sat16(v):
    return np.clip(v, -32768, 32767)


def sat8(v):
    return np.clip(v, 0, 255)


def rounding(v, n: int):
    """Shift right, half up."""
    return (v + (1 << n >> 1)) >> n


class Range:
    """A uint8 encoding as the library sees it: float32 ends (get_qu8_level_size_zero)."""

    def __init__(self, grid: Grid) -> None:
        self.low = nearest_f32(-grid.zero * grid.s)
        self.high = nearest_f32((255 - grid.zero) * grid.s)
        self.step = div_255(self.high - self.low)
        self.zero = int(sat8(to_nearest(-self.low / self.step)))
        assert self.zero == grid.zero


def add_sub(a: Grid, b: Grid, y: Grid, subtract: bool) -> np.ndarray:
    """ops/src/op_add_d32.c set_addsub_scaling_for_output_range, first_stage and second_stage with their wide forms."""
    ra, rb, ry = Range(a), Range(b), Range(y)
    out_scale = F(255) / (ry.high - ry.low)
    out_zero = -ry.low * out_scale
    fa, fb = out_scale * ra.step, out_scale * rb.step
    size = max(fa, fb) if subtract else fa + fb
    fb = -fb if subtract else fb
    rsh = min(6 - getexp(size * F(16384.0 / 16380.0)), 7)
    assert rsh >= -6
    pre = 1 - rsh if rsh <= 0 else 0
    sa, sb = (to_nearest(f * (power2(rsh) * F(256))) for f in (fa, fb))
    zero = (ra.zero * sa + rb.zero * sb) >> (8 - pre)
    offset = to_nearest(out_zero * (F(2) if pre else power2(rsh))) - zero
    if not pre:
        offset = int(sat16(offset))
    first = (CODES[:, None] * sa + CODES[None, :] * sb) >> (8 - pre)
    return sat8(rounding(sat16(first + offset), 1 if pre else rsh)).astype(np.uint8)


def mul(a: Grid, b: Grid, y: Grid) -> np.ndarray:
    """ops/src/op_add_d32.c mul_setup_scaling, set_mul_scaling_for_output_range, first_multiply, second_multiply."""
    ra, rb, ry = Range(a), Range(b), Range(y)
    bias = (((2 * ra.zero - 255) * (2 * rb.zero - 255) + 256) >> 9) * 256
    out_scale = F(255) / (ry.high - ry.low)
    gain = out_scale * (ra.step * rb.step)
    rsh = min(-getexp(gain), 7)
    assert rsh >= 0
    scale = int(sat16(to_nearest(gain * power2(rsh) * F(32768))))
    adjust = ((bias * scale + 16384) >> 15) + to_nearest(-ry.low * out_scale * power2(rsh))
    adjust = (adjust + 32768) % 65536 - 32768
    p = (CODES[:, None] - ra.zero) * (CODES[None, :] - rb.zero) - bias
    assert abs(p).max() <= 32768
    p = sat16(sat16(rounding(p * scale, 15)) + adjust)
    return sat8(rounding(p, rsh)).astype(np.uint8)


PAIRS = [
    (Grid(1 / 64, 128), Grid(1 / 64, 128), Grid(1 / 32, 128)),
    (Grid(1 / 64, 128), Grid(1 / 128, 100), Grid(1 / 64, 90)),
    (Grid(0.0371, 3), Grid(0.0117, 255), Grid(0.0411, 60)),
    (Grid(0.5, 128), Grid(0.5, 17), Grid(1 / 128, 40)),
    (Grid(0.25, 0), Grid(2.0, 255), Grid(1 / 16, 255)),
    (Grid(3.1e-6, 77), Grid(1.7e-5, 200), Grid(2.3e-5, 128)),
]


def all_pairs() -> dict[str, np.ndarray]:
    a, b = np.meshgrid(CODES.astype(np.uint8), CODES.astype(np.uint8), indexing="ij")
    return {"a": a, "b": b}


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("grids", PAIRS)
@pytest.mark.parametrize("op", ["Add", "Sub"])
def test_sums_of_all_pairs(op: str, grids: tuple[Grid, Grid, Grid], target: str) -> None:
    a, b, y = grids
    model = one_node(op, [(a, [256, 256]), (b, [256, 256])], y)
    np.testing.assert_array_equal(run_codes(model, all_pairs(), target=target), add_sub(a, b, y, op == "Sub"))


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("grids", [*PAIRS[:3], (Grid(0.031, 0), Grid(0.018, 255), Grid(0.2, 255))])
def test_products_of_all_pairs(grids: tuple[Grid, Grid, Grid], target: str) -> None:
    a, b, y = grids
    model = one_node("Mul", [(a, [256, 256]), (b, [256, 256])], y)
    np.testing.assert_array_equal(run_codes(model, all_pairs(), target=target), mul(a, b, y))


# ops/src/op_tanh_d32.c tanh_lut and sigmoid_lut: quadratic, constant and linear coefficients of 16 segments.
TANH = np.array([
    [-7994, 0, 26172], [-21652, 6418, 25098], [-29653, 12354, 22283], [-31481, 17462, 18480],
    [-28797, 21590, 14485], [-23876, 24761, 10862], [-18511, 27104, 7879], [-13703, 28784, 5579],
    [-9826, 29965, 3883], [-6894, 30782, 2671], [-4766, 31342, 1822], [-3262, 31723, 1236],
    [-2217, 31981, 835], [-1500, 32155, 563], [-1011, 32272, 378], [-677, 32351, 254],
])  # fmt: skip
SIGMOID = np.array([
    [-8026, 0, 26275], [-21738, 6443, 25197], [-29770, 12403, 22371], [-31605, 17531, 18553],
    [-28910, 21675, 14542], [-23970, 24859, 10905], [-18584, 27210, 7910], [-13757, 28898, 5601],
    [-9865, 30083, 3899], [-6921, 30904, 2681], [-4785, 31466, 1829], [-3275, 31848, 1240],
    [-2226, 32107, 838], [-1506, 32282, 565], [-1015, 32399, 380], [-680, 32479, 255],
])  # fmt: skip


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("x", [Grid(0.0625, 128), Grid(0.0371, 9), Grid(0.0003, 255), Grid(4.5, 100), Grid(0.02, 0)])
@pytest.mark.parametrize("op", ["Tanh", "Sigmoid"])
def test_squashing_of_all_codes(op: str, x: Grid, target: str) -> None:
    """ops/src/op_tanh_d32.c set_scaling_parms, operate_ref_function."""
    r = Range(x)
    sigmoid = op == "Sigmoid"
    gain = r.step * F(1.25 * 8192.0)
    gain = gain * F(0.5) if sigmoid else gain
    rsh = 15 - max(getexp(gain), 0)
    k = int(sat16(to_nearest(gain * F(1 << rsh)))) if rsh >= 0 else 32767
    rsh = max(rsh, 0)
    d = CODES - r.zero
    p = np.minimum(rounding(abs(d) * k, rsh), 32767)
    c2, c0, c1 = (SIGMOID if sigmoid else TANH)[p >> 11].T
    f = p & 0x7FF
    v = rounding(c2 * f, 15) + c1
    v = rounding(v * f * 4, 15) + c0
    v = np.where(d < 0, ~v, v)
    expected = sat8(rounding((v + (255 if sigmoid else 254) * 128 + 1) >> 1, 7))
    y = Grid(1 / 255, 0) if sigmoid else Grid(1 / 127, 127)
    model = one_node(op, [(x, [256])], y)
    np.testing.assert_array_equal(run_codes(model, {"a": CODES.astype(np.uint8)}, target=target), expected)


@pytest.mark.parametrize("target", TARGETS)
def test_concat_of_all_codes(target: str) -> None:
    """ops/src/op_concat_d32.c concat_copy_inputs, scaled_copy_d32_reference."""
    grids, y = [Grid(1 / 32, 33), Grid(1 / 64, 75), Grid(0.0421, 200)], Grid(0.0651, 130)
    parts = []
    for grid in grids:
        x, out = Range(grid), Range(y)
        recip = F(255) / (out.high - out.low)
        offset = int((x.low - out.low) * recip * F(128))
        gain = min(int(recip * ((x.high - x.low) / F(255)) * F(32768)), 32767)
        parts.append(sat8((CODES * gain + offset * 256 + (1 << 14)) >> 15))
    model = one_node("Concat", [(grid, [256]) for grid in grids], y, attributes={"axis": 0})
    feeds = {name: CODES.astype(np.uint8) for name in "abc"}
    np.testing.assert_array_equal(run_codes(model, feeds, target=target), np.concatenate(parts))


class Weights:
    """Weights of a convolution in the form that a target multiplies, and what it knows of them."""

    def __init__(self, codes: np.ndarray, grid: Grid, scales: np.ndarray | None, squeezed: bool, padded: int) -> None:
        """`padded` inputs per tap; `src/supernode_procweights.c` do_perlane_weight_scaling where squeezed."""
        outputs = codes.shape[0]
        self.factor = np.ones(outputs, F) if scales is None else (scales / scales.max()).astype(F)
        self.squeeze = np.ones(outputs, F)
        self.scaled = scales is not None or (squeezed and not 127 <= grid.zero <= 129)
        self.used = codes.astype(np.int64) - grid.zero
        self.raw = self.used.reshape(outputs, -1).sum(axis=1)
        if not squeezed:
            self.raw = self.raw + grid.zero * padded * int(np.prod(codes.shape[2:]))
            return
        for c, w in enumerate(codes.astype(np.int64)):
            k = 0
            if grid.zero >= 130 and w.min() < grid.zero - 129:
                k = (128 * 256 + 127) // (grid.zero - int(w.min()))
            elif grid.zero <= 126 and w.max() > grid.zero + 128:
                k = (127 * 256 + 127) // (int(w.max()) - grid.zero)
            if k:
                self.squeeze[c] = F(k) * F(1 / 256)
                self.used[c] = ((w * k + 128 * 256 + 128 - k * grid.zero) >> 8) - 128
            else:
                self.used[c] = np.clip(w - grid.zero, -128, 127)
        self.raw = self.used.reshape(outputs, -1).sum(axis=1)


def convolution(x: np.ndarray, xg: Grid, w: Weights, w_step: np.float32, bias: np.ndarray, bias_step: np.float32,
                yg: Grid, stride: int) -> np.ndarray:  # fmt: skip
    """include/supernode_utils.h fill_info_minmax_basics, fill_bias_buf, find_k_kinv; the kernels' output stage."""
    rx, ry = Range(xg), Range(yg)
    prod = rx.step * w_step
    k, kinv = w.factor / w.squeeze, w.squeeze / w.factor
    largest = max(F(1), k.max()) if (w.squeeze != 1).any() else F(1)
    final = largest * prod / ry.step
    shift = 0 if final <= 1 else getexp(final)
    fixed = final * power2(31 - shift)
    if w.scaled:
        fixed = (prod / ry.step) * power2(31 - shift) * k
    recip = [min(int(F(v) + F(0.5)), 0x7FFFFFFF) for v in np.broadcast_to(fixed, k.shape)]
    at_zero = -ry.low / prod
    ratio = bias_step / prod
    kernel = w.used.shape[2:]
    windows = sliding_window_view(x.astype(np.int64) - rx.zero, kernel, axis=(2, 3))[:, :, ::stride, ::stride]
    sums = np.einsum("nchwij,ocij->nohw", windows, w.used)
    out = np.empty(sums.shape, np.int64)
    for c in range(len(recip)):
        constant = F(bias[c]) * ratio + at_zero
        if w.scaled:
            constant = constant * kinv[c]
        folded = int(np.rint(constant - F(int(w.raw[c]) * rx.zero)))
        acc = (sums[:, c] + int(w.raw[c]) * rx.zero + folded) << shift
        acc = (acc + 2**31) % 2**32 - 2**31
        exact = [(int(v) * recip[c] + 2**30) >> 31 for v in acc.ravel()]
        out[:, c] = sat8(np.array(exact)).reshape(acc.shape)
    return out.astype(np.uint8)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("zero", [128, 129, 60, 126, 130, 201])
@pytest.mark.parametrize("stride", [1, 3])
@pytest.mark.parametrize("gain", [1 / 16, 0.0023, 1.7])
def test_convolutions(gain: float, stride: int, zero: int, target: str) -> None:
    rng = fresh_rng()
    xg, wg = Grid(1 / 128, 97), Grid(1 / 16, zero)
    yg = Grid(float(F(xg.scale * wg.scale / gain)), 103)
    x = rng.integers(0, 256, (1, 6, 9, 11)).astype(np.uint8)
    codes = rng.integers(0, 256, (5, 6, 3, 3)).astype(np.uint8)
    codes[0] = np.clip(codes[0], max(zero - 100, 0), min(zero + 100, 255))
    bias = rng.integers(-(2**14), 2**14, 5)
    step = Grid(xg.scale * wg.scale, 0, "int32")
    squeezed = target != "hexagon_nn_v60" and not (target == "hexagon_nn_v66" and stride > 2)
    weights = Weights(codes, wg, None, squeezed, 32)
    expected = convolution(x, xg, weights, Range(wg).step, bias, F(step.scale), yg, stride)
    operands = [(xg, list(x.shape)), Constant(codes, wg), Constant(bias.astype(np.int32), step)]
    model = one_node("Conv", operands, yg, attributes={"strides": [stride, stride]})
    np.testing.assert_array_equal(run_codes(model, {"a": x}, target=target), expected)


@pytest.mark.parametrize("target", TARGETS)
def test_convolutions_with_scales_of_channels(target: str) -> None:
    rng = fresh_rng()
    xg, wg, yg = Grid(0.0117, 33), Grid(1.0, 128), Grid(0.0731, 140)
    scales = np.array([0.013, 0.25, 0.0071, 0.125], F)
    x = rng.integers(0, 256, (2, 3, 8, 8)).astype(np.uint8)
    codes = rng.integers(0, 256, (4, 3, 3, 3)).astype(np.uint8)
    bias = rng.integers(-3000, 3000, 4)
    step = Grid(0.0117 * 0.25, 0, "int32")
    weights = Weights(codes, wg, scales.astype(np.float64), target != "hexagon_nn_v60", 32)
    w_step = Range(Grid(float(scales.max()), 128)).step
    expected = convolution(x, xg, weights, w_step, bias, F(step.scale), yg, 1)
    operands = [
        (xg, list(x.shape)),
        Constant(codes, wg, tuple(map(float, scales))),
        Constant(bias.astype(np.int32), step),
    ]
    model = one_node("Conv", operands, yg)
    np.testing.assert_array_equal(run_codes(model, {"a": x}, target=target), expected)


def power_v65(f: int) -> int:
    """ops/src/op_softmax_d32.c pow2_v65_poly, by its table of decimal coefficients."""
    x = 0xFFFF - f
    quarter = x >> 14
    p = (4300, 5119, 6087, 7230)[quarter]
    for c in ((22652, 21816, 19857, 16404), (32769, 32876, 33371, 34675)):
        p = int(sat16((p * x + (c[quarter] << 15)) >> 16))
    return p


# src/hvx_constants.c lut_Log2_and_Pow2, last three vectors.
POWERS = np.array([
    [32767, -22709, 7703], [31379, -21746, 7377], [30048, -20824, 7064], [28774, -19941, 6765],
    [27554, -19096, 6478], [26386, -18286, 6203], [25268, -17511, 5940], [24196, -16769, 5688],
    [23170, -16058, 5447], [22188, -15377, 5216], [21247, -14725, 4995], [20347, -14101, 4783],
    [19484, -13503, 4580], [18658, -12930, 4386], [17867, -12382, 4200], [17109, -11857, 4022],
])  # fmt: skip


def mul15(a: int, b: int) -> int:
    return int(sat16(rounding(a * b, 15)))


def power_v60(f: int) -> int:
    """ops/src/op_softmax_d32.c hvx_pow2_func before V65."""
    c0, c1, c2 = (int(c) for c in POWERS[f >> 12])
    x = (f & 0xFFF) >> 1
    return int(sat16(c0 + mul15(int(sat16(c1 + mul15(c2, x))), x)))


def reciprocal(d: int, v65: bool) -> int:
    """include/hvx_mathops.h hvx_recip16_inline with a precision of 10."""
    if v65:
        d4 = d * 4 & 0xFFFF
        quarter = d4 >> 14
        p = (0x2E12, 0x199B, 0x0F69, 0x09E2)[quarter]
        p = int(sat16((p * d4 - ((0x7D56, 0x6AB6, 0x5751, 0x472E)[quarter] << 15)) >> 16))
        p = int(sat16((p * d4 + ((0x8001, 0x7DE8, 0x794E, 0x736C)[quarter] << 15)) >> 16))
        x = int(sat16(p + p))
    else:
        d2 = (2 * d + 32768) % 65536 - 32768
        p = int(sat16(mul15(d2, 10598) - 5306))
        x = int(sat16(mul15(d2, p) + 16569))
    for _ in range(1 if v65 else 2):
        error = int(sat16(mul15(d, x) - (1 << 14)))
        x = int(sat16(x - mul15(int(sat16(error + error)), x)))
    return x


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("x", [Grid(0.1, 128), Grid(0.0625, 255), Grid(1.0, 64), Grid(0.0039, 102), Grid(0.03, 205)])
@pytest.mark.parametrize("depth", [3, 17, 256])
def test_softmax(depth: int, x: Grid, target: str) -> None:
    """ops/src/op_softmax_d32.c set_scaling_parms, hvx_pow2_func, final_scaling_op."""
    v65 = target != "hexagon_nn_v60"
    rows = fresh_rng().integers(0, 256, (6, depth))
    rows[0] = np.resize(CODES, depth)
    rows[1] = 77
    r = Range(x)
    scale = (r.high - r.low) * F(1) * F(1.0 / (255.0 * 0.69314718055994))
    rsh = min(31, 7 - getexp(scale))
    beta = int(sat16(to_nearest(scale * power2(rsh + 8))))
    head = max(2, int(depth - 1).bit_length())
    expected = []
    for row in rows:
        wide, narrow = [], []
        for code in row:
            t = (int(row.max()) - int(code)) * 256 * beta >> rsh
            power = (power_v65 if v65 else power_v60)(t & 0xFFFF)
            wide.append((power << (16 - head)) >> min(t >> 16, 31))
            narrow.append(int(sat16(rounding(wide[-1], 16 - head))))
        norm = 31 - sum(wide).bit_length()
        mant = mul15(reciprocal(sum(wide) << norm >> 16, v65), 255 << 7)
        last = max(head + 3 - norm, 0)
        expected.append([int(sat8(rounding(int(sat16((m * mant >> last) >> 12)), 6))) for m in narrow])
    model = one_node("Softmax", [(x, list(rows.shape))], Grid(1 / 255, 0), attributes={"axis": -1})
    np.testing.assert_array_equal(run_codes(model, {"a": rows.astype(np.uint8)}, target=target), expected)


REFUSED = [
    ("Relu", [(Grid(0.1, 0, "int8"), [4])], Grid(0.1, 0, "int8"), None),
    ("Tanh", [(Grid(0.1, 7), [4])], Grid(0.01, 0), None),
    ("Add", [(Grid(8.0, 7), [4]), (Grid(8.0, 7), [4])], Grid(0.001, 0), None),
    ("Mul", [(Grid(8.0, 7), [4]), (Grid(8.0, 7), [4])], Grid(1.0, 0), None),
    ("Softmax", [(Grid(0.1, 7), [3, 5])], Grid(1 / 256, 0), None),
    ("AveragePool", [(Grid(0.1, 7), [1, 2, 4, 4])], Grid(0.1, 7), {"kernel_shape": [4, 4]}),
    ("AveragePool", [(Grid(0.1, 7), [1, 2, 8, 8])], Grid(0.1, 7), {"kernel_shape": [3, 3], "pads": [2, 2, 2, 2]}),
]


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize(("op", "operands", "y", "attributes"), REFUSED)
def test_what_the_library_has_no_kernel_for_is_refused(op, operands, y, attributes, target) -> None:
    model = one_node(op, operands, y, attributes=attributes)
    feeds = {name: np.zeros(o[1], o[0].dtype) for name, o in zip("ab", operands, strict=False)}
    with pytest.raises((nputwin.UnsupportedError, nputwin.TargetUnsupportedError)):
        run_codes(model, feeds, target=target)
