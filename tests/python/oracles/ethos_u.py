"""nxp-imx/ethos-u-vela@a6f65663 ethosu/vela/{scaling.py, weight_compressor.py}, and for Ethos-U85 hapv3/neural-compiler
ethosu/regor/architecture/ethosu85/ethos_u85_scaling.cpp@350f95e6, ethosu/regor/common/scaling.cpp@5949a775.

TFL rounding is that of gemmlowp: a doubling high multiply with a truncating division, then a division by a power of two
whose remainder is compared with a threshold.
"""

from __future__ import annotations

import math

import numpy as np

F = np.float32


def quantise_scale(scale: float) -> tuple[int, int]:
    significand, exponent = math.frexp(scale)
    value, shift = math.trunc(significand * 2**31 + 0.5), 31 - exponent
    return (value, shift) if 0 <= shift < 64 else (0, 16)


def regor_scale(scale: float) -> tuple[int, int]:
    significand, exponent = math.frexp(scale)
    value, shift = min(math.trunc(significand * 2**31 + 0.5), 2**31 - 1), 31 - exponent
    if shift > 63:
        return (value >> (shift - 63), 63) if value > 2.0 ** (shift - 63) else (0, 0)
    return value, shift


def tfl(v: np.ndarray, scale: tuple[int, int]) -> np.ndarray:
    """Elementwise on Python integers."""

    def one(v: int) -> int:
        multiplier, shift = scale
        product = int(v) * multiplier
        if shift <= 31:
            return (product + (1 << shift >> 1)) >> shift
        nudge = 1 << 30 if product >= 0 else 1 - (1 << 30)
        total = abs(product + nudge) >> 31
        high = total if product + nudge >= 0 else -total
        right = shift - 31
        mask = (1 << right) - 1
        remainder, threshold = high & mask, (mask >> 1) + (high < 0)
        return (high >> right) + (remainder > threshold)

    return np.vectorize(one, otypes=[object])(v)


def natural(v: np.ndarray, scale: tuple[int, int]) -> np.ndarray:
    multiplier, shift = scale
    return (v * multiplier + (1 << shift >> 1)) >> shift


def conv(acc: np.ndarray, scales: tuple[float, float, float], zero: int, *, signed: bool, wide: bool) -> np.ndarray:
    ratio = scales[0] * scales[1] / scales[2] if signed else float(F(scales[0]) * F(scales[1])) / scales[2]
    return (natural if wide else tfl)(acc, quantise_scale(ratio)) + zero


def add_or_sub(
    a: np.ndarray, b: np.ndarray, scales: tuple[float, float, float], zero: int, sign: int, left: int
) -> np.ndarray:
    sa, sb, sy = scales
    twice = 2 * max(sa, sb)
    small = quantise_scale(min(sa, sb) * 2**left / twice)
    out = quantise_scale(twice / (sy * 2**left))
    scaled, shifted = (lambda v: tfl(v, small)), (lambda v: v << (left - 1))
    first, second = (scaled, shifted) if sa < sb else (shifted, scaled)
    return tfl(first(a) + sign * second(b), out) + zero


def u85_add_or_sub(
    a: np.ndarray, b: np.ndarray, scales: tuple[float, float, float], zero: int, sign: int, left: int
) -> np.ndarray:
    sa, sb, sy = scales
    twice = 2 * max(sa, sb)
    parts = [tfl(v, regor_scale(s * 2**left / twice)) for v, s in ((a, sa), (b, sb))]
    return tfl(parts[0] + sign * parts[1], regor_scale(twice / (sy * 2**left))) + zero


def mul(a: np.ndarray, b: np.ndarray, scales: tuple[float, float, float], zero: int) -> np.ndarray:
    return tfl(a * b, quantise_scale(float(F(scales[0]) * F(scales[1]) / F(scales[2])))) + zero


def u85_mul(a: np.ndarray, b: np.ndarray, scales: tuple[float, float, float], zero: int) -> np.ndarray:
    return tfl(a * b, regor_scale(scales[0] * scales[1] / scales[2])) + zero


def requantize(x: np.ndarray, scales: tuple[float, float], zero: int) -> np.ndarray:
    return tfl(x, quantise_scale(scales[0] / scales[1])) + zero


def average(sums: np.ndarray, count: int, zero: int) -> np.ndarray:
    _, k = math.frexp(count - 1)
    return tfl(sums, (((1 << (31 + k)) + (1 << k)) // count, 31 + k)) + zero
