"""kendryte/nncase: kpu_conv2d of k210_kernels.h@cd14a027; carry_shift of runtime_op_utility.h@9cd31c0d and of 0.1."""

from __future__ import annotations

import math

import numpy as np


def carry_shift(value: int, shift: int, banker: bool) -> int:
    if shift <= 0:
        return value
    if not banker:
        value >>= shift - 1
        if value & 1:
            return (value >> 1) - 1 if value < 0 else (value >> 1) + 1
        return value >> 1
    integral, fractional, half = value >> shift, value & ((1 << shift) - 1), 1 << (shift - 1)
    sign = -1 if value < 0 else 1
    if fractional < half:
        return integral
    if fractional > half:
        return integral + sign
    return integral + sign if integral & 1 else integral


def conv(acc: np.ndarray, scales: tuple[float, float, float], zero: int, banker: bool) -> np.ndarray:
    """Batch normalisation that changes nothing, and one line through zero."""
    significand, exponent = math.frexp(scales[0] * scales[1] / scales[2])
    multiplier, shift = int(significand * 2**15), 15 - exponent
    return np.array([carry_shift(int(v) * multiplier, shift, banker) + zero for v in acc], dtype=object)
