"""apache/tvm@21095b98 src/relay/qnn: utils.cc, op/requantize.cc, op/add.cc, op/subtract.cc, op/mul.cc."""

from __future__ import annotations

import math

import numpy as np

F = np.float32


def multiplier(r: float) -> tuple[int, int]:
    significand, exponent = math.frexp(r)
    fixed = math.floor(significand * 2**31 + 0.5)
    return (fixed // 2, exponent + 1) if fixed == 2**31 else (fixed, exponent)


def requantize(v: np.ndarray, r: float, zero: int, rounding: str = "UPWARD", dtype: str = "int64") -> np.ndarray:
    """Integers times r plus a zero point, not clipped."""
    if dtype == "float32":
        f = (v.astype(np.int64).astype(F) * F(r)).astype(F) + F(zero)
        f = np.floor(f + F(0.5)) if rounding == "UPWARD" else np.copysign(np.floor(np.abs(f.astype(float)) + 0.5), f)
        return np.clip(f.astype(np.float64), -(2.0**31), 2.0**31 - 1).astype(np.int64).astype(object)
    fixed, exponent = multiplier(r)
    shift = 31 + max(-exponent, 0)
    products = v * 2 ** max(exponent, 0) * fixed
    nudge = 2 ** (shift - 1)
    if rounding == "TONEAREST":
        nudge = np.where(products >= 0, nudge, nudge - 1)
    return ((products + nudge) >> shift) + zero


def add(a: np.ndarray, b: np.ndarray, scales: tuple[float, float, float], zero: int, **how: str) -> np.ndarray:
    sa, sb, sy = scales
    return requantize(a, sa / sy, zero, **how) + requantize(b, sb / sy, zero, **how) - zero


def sub(a: np.ndarray, b: np.ndarray, scales: tuple[float, float, float], zero: int, **how: str) -> np.ndarray:
    sa, sb, sy = scales
    return requantize(a, sa / sy, zero, **how) - requantize(b, sb / sy, zero, **how) + zero


def mul(a: np.ndarray, b: np.ndarray, scales: tuple[float, float, float], zero: int, **how: str) -> np.ndarray:
    return requantize(a * b, float(F(scales[0]) * F(scales[1])) / scales[2], zero, **how)


def conv(acc: np.ndarray, scales: tuple[float, float, float], zero: int, **how: str) -> np.ndarray:
    return requantize(acc, float(F(scales[0]) * F(scales[1])) / scales[2], zero, **how)
