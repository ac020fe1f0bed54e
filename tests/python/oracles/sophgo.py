"""sophgo/tpu-mlir lib/Support/MathUtils.{h,cpp}@00058f6d and the lowerings of Conv and Add for BM1684 and BM1684X."""

from __future__ import annotations

import math

import numpy as np

F = np.float32


def c_round(v: float) -> int:
    return int(math.copysign(math.floor(abs(v) + 0.5), v))


def to_int8(v: float) -> int:
    return min(max(c_round(v), -128), 127)


def right_shift_round(v: np.ndarray, shift: int) -> np.ndarray:
    """ROUNDING_HALF_UP; a negative shift goes left."""
    return (v + (1 << shift >> 1)) >> shift if shift >= 0 else v << -shift


def get_scale_and_shift(scale: float, shifts: range, limit: int) -> tuple[int, int]:
    s, least, best = F(scale), F(np.finfo(F).max), 0
    for n in shifts:
        m = c_round(float(s) * 2.0**n)
        m = m if abs(m) < 2**31 else -(2**31)
        error = F(abs(m / 2.0**n - float(s)))
        if error < least and abs(m) < limit:
            least, best = error, n
    return c_round(float(s) * 2.0**best), best


def bm1684x_conv(acc: np.ndarray, scales: tuple[float, float, float]) -> np.ndarray:
    sx, sw, sy = scales
    m, shift = get_scale_and_shift(sw * sx / sy, range(-32, 31), 2**31 - 1)
    return right_shift_round(acc * m, shift)


def bm1684x_add(a: np.ndarray, b: np.ndarray, scales: tuple[float, float, float]) -> np.ndarray:
    total = 0
    for v, s in ((a, scales[0]), (b, scales[1])):
        m, shift = get_scale_and_shift(s / scales[2], range(31), 127)
        total = total + right_shift_round(v * m, shift)
    return total


def bm1684_add(a: np.ndarray, b: np.ndarray, scales: tuple[float, float, float]) -> np.ndarray:
    total = 0
    for v, s in ((a, scales[0]), (b, scales[1])):
        shift = max(min(math.floor(math.log(127.0 / (s / scales[2])) / math.log(2.0)), 31), 0)
        total = total + right_shift_round(v * to_int8(float(F(float(1 << shift) * s / scales[2]))), shift)
    return total


def bm1684_conv(
    x: np.ndarray, weights: np.ndarray, bias: np.ndarray, scales: tuple[float, float, float]
) -> tuple[np.ndarray, int]:
    """x [pixels, in], codes of weights [out, in], real biases [out]; the scale of the weights is scales[1]."""
    sx, sw, sy = scales
    reals = weights.astype(F) * F(sw)
    product, doublings = float(np.abs(reals).max()) * sx / sy, 0
    while product < 127:
        product, doublings = product * 2, doublings + 1
    shift = 31 if doublings > 32 else doublings - 1
    scale = F(float(1 << shift) * sx / sy)
    codes = np.vectorize(to_int8, otypes=[object])((reals * scale).astype(F).astype(float))
    factor = F(float(1 << shift) / sy)
    integers = [min(max(c_round(float(F(b) * factor)), -(2**15)), 2**15 - 1) for b in bias]
    return right_shift_round(x.astype(object) @ codes.T + np.array(integers, dtype=object), shift), shift


def cv18xx_add(a: np.ndarray, b: np.ndarray, scales: tuple[float, float, float]) -> np.ndarray:
    ratios = [float(F(s / scales[2])) for s in scales[:2]]
    shift = next(n for n in range(63) if max(ratios) * 2.0 ** (n + 1) >= 127.0)
    first, second = (int(np.int64(r * 2.0**shift).astype(np.int8)) for r in ratios)
    total = (a * first + b * second).astype(np.int64).astype(F)
    return np.floor((total / F(2.0**shift)).astype(np.float64) + 0.5).astype(np.int64).astype(object)


def half_even(v: float) -> int:
    return round(v)


def cv18xx_conv(
    x: np.ndarray, weights: np.ndarray, bias: np.ndarray, scales: tuple[float, np.ndarray, float]
) -> np.ndarray:
    """x [pixels, in], codes of weights [out, in] with one scale per row, real biases [out]."""
    sx, sw, sy = scales
    in_threshold, out_threshold = F(sx * 127.0), F(sy * 127.0)
    out = np.empty([len(x), len(weights)], dtype=object)
    for c, row in enumerate(weights):
        reals = row.astype(F) * F(sw[c])
        qscale = float((np.abs(reals).max() * in_threshold) / (F(127.0) * out_threshold))
        qscale = 0.999999 if qscale >= 1 else qscale
        significand, exponent = math.frexp(qscale)
        multiplier, shift = c_round(significand * 2**31), -exponent
        factor = F(float(in_threshold / out_threshold) * 2.0 ** (shift + 31) / multiplier)
        codes = [min(max(half_even(float(v)), -128), 127) for v in reals * factor]
        bias_factor = F(float(F(127.0) / out_threshold) * 2.0 ** (shift + 31) / multiplier)
        sums = x.astype(object) @ np.array(codes, dtype=object) + half_even(float(F(bias[c]) * bias_factor))
        high = (sums * multiplier + 2**30) >> 31
        half = 1 << shift >> 1
        out[:, c] = np.where(high >= 0, (high + half) >> shift, -((-high + half) >> shift)) if shift else high
    return out
