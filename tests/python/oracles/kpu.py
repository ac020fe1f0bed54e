"""kendryte/nncase@99431d9d modules/k210: kpu_conv2d of k210_kernels.h; what kpu_conv2d.cpp and piecewise_regression.cpp
make of scales; get_fixed_mul of nncase 1; carry_shift of runtime_op_utility.h@9cd31c0d and of 0.1."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

F = np.float32


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


def fixed_mul(value: np.float32, max_bits: int, max_shift: int) -> tuple[int, int]:
    """`get_fixed_mul` of a signed factor: multiplier and shift."""
    bits = max_bits - 1
    if value == 0:
        return 0, 0
    mantissa, exponent = math.frexp(float(value))
    if abs(value) > 1:
        shift = min(max_shift, bits - exponent)
        return round(mantissa * 2.0 ** (shift + exponent)), shift
    shift = min(max_shift + exponent, bits)
    return round(mantissa * 2.0**shift), shift - exponent


def regression(x: np.ndarray, y: np.ndarray, count: int) -> list[tuple[np.float32, np.float32, np.float32]]:
    """Start, slope and value at the start of `count` segments: neighbours of the least difference are joined first."""
    start, stop, value = x[:-1].copy(), x[1:].copy(), y[:-1].copy()
    slope = (y[1:] - y[:-1]) / (x[1:] - x[:-1])
    while len(slope) > count:
        i = int(np.argmin(np.abs(slope[:-1] - slope[1:])))
        first = (start[i] - start[i]) * slope[i] + value[i]
        last = (stop[i + 1] - start[i + 1]) * slope[i + 1] + value[i + 1]
        slope[i] = (last - first) / (stop[i + 1] - start[i])
        stop[i] = stop[i + 1]
        start, stop, value, slope = (np.delete(v, i + 1) for v in (start, stop, value, slope))
    return list(zip(start, slope, value, strict=True))


@dataclass
class Layer:
    """What the compiler puts into the chip's registers."""

    norm: list[tuple[int, int, int]]
    segments: list[tuple[int, int, int, int]]


def compile_layer(
    scales: tuple[float, list[float], float], zero: int, bias: np.ndarray, window: int, limits: tuple[float, float]
) -> Layer:
    """`window`: input channels (one where the convolution is depthwise) and taps; `limits`: of the fused activation."""
    sx, sw, sy = F(scales[0]), [F(s) for s in scales[1]], F(scales[2])
    bias = bias.astype(F)
    x_bits = 9 + 9 - 1 + math.ceil(math.log2(window))
    most = 2.0 ** min(21, 36 - x_bits) - 1.0
    least = max(float(sx * max(sw)) / most, float(np.abs(bias).max()) / (2.0**31 - 1.0))
    unit = float(sy)
    while unit / 2.0 >= least:
        unit /= 2.0
    norm = []
    for s, b in zip(sw, bias, strict=True):
        mul, shift = fixed_mul(F(float(sx * s) / unit), 22, 15)
        norm.append((mul, shift, round(float(b) / unit)))
    low, high = (F(np.clip(F(code - zero) * sy, F(limits[0]), F(limits[1]))) for code in (0, 255))
    samples = low + np.arange(2048).astype(F) * ((high - low) / F(2047))
    segments = [(-(2**35), 0, 0, 0)]
    for start, slope, value in regression(samples, samples, 15):
        mul, shift = fixed_mul(slope * (F(unit) / sy), 16, 43)
        mul = (mul + 2**15) % 2**16 - 2**15
        code = min(max(round(float(value / sy + F(zero))), 0), 255)
        segments.append((round(float(start / F(unit))), mul, shift, code))
    return Layer(norm, segments)


def activate(value: int, segments: list[tuple[int, int, int, int]], banker: bool) -> int:
    start, mul, shift, add = next(s for s in reversed(segments) if value > s[0])
    return min(max(carry_shift((value - start) * mul, shift, banker) + add, 0), 255)


def conv(acc: np.ndarray, layer: Layer, banker: bool) -> np.ndarray:
    """Sums without bias; the last axis is that of channels."""
    out = np.empty(acc.shape, dtype=np.uint8)
    for index in np.ndindex(*acc.shape):
        mul, shift, add = layer.norm[index[-1]]
        out[index] = activate((int(acc[index]) * mul >> shift) + add, layer.segments, banker)
    return out
