"""nvdla/hw@8e06b1b9 cmod/hls/sdp/sdp_c.cpp and nvdla/sw@79538ba1 umd/core/src/compiler/include/priv/LowPrecision.h."""

from __future__ import annotations

import math

import numpy as np

F = np.float32


def scale_and_shift(scalar: float) -> tuple[int, int]:
    """scaleAndShiftFromScalarImpl2; the number of bits is the exponent, not a quotient of logarithms."""
    _, bits = math.frexp(scalar)
    return int(2.0 ** (15 - bits) * scalar), 15 - bits


def convert(v: np.ndarray, scalar: float) -> np.ndarray:
    """AC_RND_INF and AC_SAT to 17 bits, then to 8."""
    scale, shift = scale_and_shift(scalar)
    products = v * scale
    half = 1 << shift >> 1
    rounded = np.where(products >= 0, (products + half) >> shift, -((-products + half) >> shift))
    return np.clip(np.clip(rounded, -(2**16), 2**16 - 1), -128, 127)


def conv(acc: np.ndarray, scales: tuple[float, float, float]) -> np.ndarray:
    return convert(np.clip(acc, -(2**31), 2**31 - 1), float(F(scales[0]) / F(scales[2]) * F(scales[1])))


def add(a: np.ndarray, b: np.ndarray, scales: tuple[float, float]) -> np.ndarray:
    return convert(a + b, float(F(scales[0]) / F(scales[1])))
