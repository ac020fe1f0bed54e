"""Targets read from source against second implementations, written from the cited lines and not from the TOML.

Every code of a unary operator, every pair of codes of a binary one, and accumulators on ties and around powers of two
are compared, under encodings of which half are powers of two.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from conftest import fresh_rng
from one_node import Constant, Grid, one_node, run_codes
from onnx import numpy_helper
from oracles import ethos_u, kpu, nvdla, sophgo, tvm_q31

import nputwin

Scales = tuple[float, float, float]


def f32(v: float) -> float:
    return float(np.float32(v))


def grid(rng: np.random.Generator, dtype: str, power: bool, symmetric: bool = False) -> Grid:
    info = np.iinfo(dtype)
    scale = 2.0 ** int(rng.integers(-6, 1)) if power else f32(rng.uniform(0.01, 0.9))
    return Grid(scale, 0 if symmetric else int(rng.integers(info.min, info.max + 1)), dtype)


def scales(*grids: Grid) -> tuple[float, ...]:
    return tuple(float(g.s) for g in grids)


def equal(got: np.ndarray, expected: np.ndarray) -> None:
    differing = np.flatnonzero(got.ravel().astype(np.int64) != expected.ravel().astype(np.int64))
    where = differing[:4]
    assert not differing.size, f"{differing.size} of {got.size}: {got.ravel()[where]} != {expected.ravel()[where]}"


def pairs(op: str, a: Grid, b: Grid, y: Grid, target: str, **options) -> np.ndarray:
    model = one_node(op, [(a, [256, 1]), (b, [1, 256])], y)
    return run_codes(model, {"a": a.codes()[:, None], "b": b.codes()[None, :]}, target=target, **options)


def centred(a: Grid, b: Grid) -> tuple[np.ndarray, np.ndarray]:
    left, right = (g.codes().astype(object) - g.zero for g in (a, b))
    return left[:, None], right[None, :]


def accumulators(rng: np.random.Generator, ratio: float) -> np.ndarray:
    """Around ties of a rescale by `ratio`, around powers of two, and any."""
    ties = np.round((rng.integers(-300, 300, 300) + 0.5) / ratio)
    near = np.add.outer(ties, [-1, 0, 1]).ravel()
    powers = [sign * 2**k + d for k in range(31) for sign in (-1, 1) for d in (-1, 0, 1)]
    some = np.concatenate([near, powers, rng.integers(-(2**31), 2**31, 200)])
    return np.clip(some, -(2**31), 2**31 - 1).astype(np.int64)


def conv_of(acc: np.ndarray, x: Grid, w: Grid, y: Grid, target: str, **options) -> np.ndarray:
    """A convolution of zeros: each channel's bias is its accumulator."""
    n = len(acc)
    bias = Constant(acc.astype(np.int32), Grid(float(x.s * w.s), 0, "int32"))
    weights = Constant(np.full([n, 1, 1, 1], w.zero + 1), w)
    model = one_node("Conv", [(x, [1, 1, 1, 1]), weights, bias], y)
    zero = np.full([1, 1, 1, 1], x.zero, x.dtype)
    return run_codes(model, {"a": zero}, target=target, **options).ravel()


TVM_MODES = [(rounding, dtype) for rounding in ("UPWARD", "TONEAREST") for dtype in ("int64", "float32")]


@pytest.mark.parametrize(("rounding", "dtype"), TVM_MODES)
def test_tvm_q31(rounding: str, dtype: str) -> None:
    rng = fresh_rng()
    how = {"rounding": rounding, "dtype": dtype}
    options = {"target": "tvm_q31", "assume": {"rounding": rounding, "compute_dtype": dtype}}
    for power in (True, False):
        for kind in ("uint8", "int8"):
            a, b, y = (grid(rng, kind, power) for _ in range(3))
            three = scales(a, b, y)
            u, v = centred(a, b)
            for op, oracle in {"Add": tvm_q31.add, "Sub": tvm_q31.sub, "Mul": tvm_q31.mul}.items():
                equal(pairs(op, a, b, y, **options), y.saturate(oracle(u, v, three, y.zero, **how)))
            w = grid(rng, "int8", power, symmetric=True)
            acc = accumulators(rng, float(a.s * w.s / y.s))
            acc = acc[np.abs(acc * float(a.s * w.s / y.s)) < 2**30]  # beyond, 64-bit products overflow
            expected = tvm_q31.conv(acc.astype(object), scales(a, w, y), y.zero, **how)
            equal(conv_of(acc, a, w, y, **options), y.saturate(expected))


ETHOS_ADDS: dict[str, Callable[..., np.ndarray]] = {
    "ethos_u55": ethos_u.add_or_sub,
    "ethos_u65": ethos_u.add_or_sub,
    "ethos_u85": ethos_u.u85_add_or_sub,
}


@pytest.mark.parametrize("target", ETHOS_ADDS)
def test_ethos_u(target: str) -> None:
    rng = fresh_rng()
    for power in (True, False):
        for kind in ("uint8", "int8"):
            a, b, y = (grid(rng, kind, power) for _ in range(3))
            three = scales(a, b, y)
            u, v = centred(a, b)
            for op, sign in (("Add", 1), ("Sub", -1)):
                equal(pairs(op, a, b, y, target), y.saturate(ETHOS_ADDS[target](u, v, three, y.zero, sign, 20)))
            product = ethos_u.u85_mul if target == "ethos_u85" else ethos_u.mul
            equal(pairs("Mul", a, b, y, target), y.saturate(product(u, v, three, y.zero)))
            w = grid(rng, "int8", power, symmetric=True)
            acc = accumulators(rng, float(a.s * w.s / y.s))
            expected = ethos_u.conv(acc.astype(object), scales(a, w, y), y.zero, signed=kind == "int8", wide=False)
            equal(conv_of(acc, a, w, y, target), y.saturate(expected))
        x, y = grid(rng, "int16", power, symmetric=True), grid(rng, "int16", power, symmetric=True)
        w = grid(rng, "int8", power, symmetric=True)
        acc = accumulators(rng, float(x.s * w.s / y.s))
        expected = ethos_u.conv(acc.astype(object), scales(x, w, y), 0, signed=True, wide=True)
        equal(conv_of(acc, x, w, y, target), y.saturate(expected))


@pytest.mark.parametrize("target", ["ethos_u55", "ethos_u65"])
@pytest.mark.parametrize("kernel", [[2, 2], [3, 3], [5, 3], [7, 7]])
def test_ethos_u_average_pool(kernel: list[int], target: str) -> None:
    rng = fresh_rng()
    x = grid(rng, "int8", power=True)
    y = Grid(x.scale, grid(rng, "int8", power=True).zero, "int8")
    codes = rng.integers(-128, 128, [1, 3, 12, 12]).astype(np.int8)
    got = run_codes(
        one_node("AveragePool", [(x, [1, 3, 12, 12])], y, attributes={"kernel_shape": kernel}),
        {"a": codes},
        target=target,
    )
    windows = np.lib.stride_tricks.sliding_window_view(codes.astype(np.int64) - x.zero, kernel, axis=(2, 3))
    sums = windows.sum(axis=(4, 5)).astype(object)
    equal(got, y.saturate(ethos_u.average(sums, kernel[0] * kernel[1], y.zero)))


@pytest.mark.parametrize("target", ["sophgo_bm1684", "sophgo_bm1684x", "sophgo_cv18xx"])
def test_sophgo_add(target: str) -> None:
    rng = fresh_rng()
    oracles = {
        "sophgo_bm1684": sophgo.bm1684_add,
        "sophgo_bm1684x": sophgo.bm1684x_add,
        "sophgo_cv18xx": sophgo.cv18xx_add,
    }
    for power in (True, False, True, False):
        a, b, y = (grid(rng, "int8", power, symmetric=True) for _ in range(3))
        u, v = centred(a, b)
        equal(pairs("Add", a, b, y, target), y.saturate(oracles[target](u, v, scales(a, b, y))))


def test_sophgo_bm1684x_conv() -> None:
    rng = fresh_rng()
    for power in (True, False, True, False):
        x, w, y = (grid(rng, "int8", power, symmetric=True) for _ in range(3))
        acc = accumulators(rng, float(x.s * w.s / y.s))
        equal(
            conv_of(acc, x, w, y, "sophgo_bm1684x"),
            y.saturate(sophgo.bm1684x_conv(acc.astype(object), scales(x, w, y))),
        )


def test_sophgo_bm1684_conv() -> None:
    rng = fresh_rng()
    for power in (True, False, True, False):
        x, w = (grid(rng, "int8", power, symmetric=True) for _ in range(2))
        weights = rng.integers(-100, 101, [7, 5]).astype(np.int8)
        y = Grid(f32(float(x.s * w.s) * (64 if power else rng.uniform(20, 200))), 0, "int8")
        codes = rng.integers(-128, 128, [400, 5]).astype(np.int8)
        bias = rng.normal(0, 20 * float(y.s), 7).astype(np.float32)
        shaped = weights.reshape(7, 5, 1, 1)
        model = one_node("Conv", [(x, [400, 5, 1, 1]), Constant(shaped, w), Constant(bias)], y)
        got = run_codes(model, {"a": codes.reshape(400, 5, 1, 1)}, target="sophgo_bm1684")
        expected, shift = sophgo.bm1684_conv(codes, weights, bias, scales(x, w, y))
        assert shift > 0
        equal(got, y.saturate(expected))


@pytest.mark.parametrize("per_channel", [False, True], ids=["tensor", "channel"])
def test_sophgo_cv18xx_conv(per_channel: bool) -> None:
    rng = fresh_rng()
    for power in (True, False, True, False):
        x = grid(rng, "int8", power, symmetric=True)
        w = [grid(rng, "int8", power, symmetric=True).scale for _ in range(7)]
        w = w if per_channel else [w[0]] * 7
        weights = rng.integers(-127, 128, [7, 5]).astype(np.int8)
        y = Grid(f32(float(x.s) * max(w) * rng.uniform(200, 400)), 0, "int8")
        codes = rng.integers(-128, 128, [400, 5]).astype(np.int8)
        bias = rng.normal(0, 20 * float(y.s), 7).astype(np.float32)
        channels = tuple(w) if per_channel else None
        constants = [Constant(weights.reshape(7, 5, 1, 1), Grid(w[0], 0, "int8"), channels), Constant(bias)]
        model = one_node("Conv", [(x, [400, 5, 1, 1]), *constants], y)
        got = run_codes(model, {"a": codes.reshape(400, 5, 1, 1)}, target="sophgo_cv18xx")
        real = float(x.s), np.float32(w).astype(float), float(y.s)
        equal(got, y.saturate(sophgo.cv18xx_conv(codes, weights, bias, real)))


def test_nvdla() -> None:
    rng = fresh_rng()
    for power in (True, False, True, False):
        a, w, y = (grid(rng, "int8", power, symmetric=True) for _ in range(3))
        u, v = centred(a, a)
        equal(pairs("Add", a, a, y, "nvdla"), y.saturate(nvdla.add(u, v, scales(a, y))))
        acc = accumulators(rng, float(a.s * w.s / y.s))
        equal(conv_of(acc, a, w, y, "nvdla"), y.saturate(nvdla.conv(acc.astype(object), scales(a, w, y))))


KPU_CARRIES = pytest.mark.parametrize("carry", ["banker", "half_step"])
ALL_CODES = np.arange(256, dtype=np.uint8).reshape(256, 1, 1, 1)


@KPU_CARRIES
@pytest.mark.parametrize("kind", ["tensor", "channel", "relu6", "without_bias"])
def test_kpu_k210(carry: str, kind: str) -> None:
    rng = fresh_rng()
    codes = np.linspace(0, 255, 64).astype(np.uint8)
    for power in (True, False, True, False):
        x, w, y = (grid(rng, "uint8", power) for _ in range(3))
        x, w = Grid(x.scale / 8, x.zero), Grid(w.scale / 16, 128 if kind == "channel" else w.zero)
        limits = (-np.inf, np.inf)
        if kind == "relu6":
            y, limits = Grid(f32(6 / 255), 0), (0.0, 6.0)
        channels = [f32(w.scale * rng.uniform(0.3, 1)) for _ in codes] if kind == "channel" else None
        units = float(x.s) * np.array(channels or [float(w.s)] * len(codes))
        bias = (np.round(rng.uniform(-200, 200, len(codes)) * float(y.s) / units) * units).astype(np.float32)
        if kind == "without_bias":
            bias[:] = 0
        weights = Constant(codes.reshape(-1, 1, 1, 1), w, tuple(channels) if channels else None)
        operands = [(x, [256, 1, 1, 1]), weights, None if kind == "without_bias" else Constant(bias)]
        model = one_node("Conv", operands, y)
        got = run_codes(model, {"a": ALL_CODES}, target="kpu_k210", assume={"carry": carry})
        acc = (ALL_CODES.reshape(256, 1).astype(np.int64) - x.zero) * (codes.astype(np.int64) - w.zero)
        three = float(x.s), channels or [float(w.s)] * len(codes), float(y.s)
        layer = kpu.compile_layer(three, y.zero, bias, 1 + 1, limits)
        equal(got, kpu.conv(acc, layer, carry == "banker"))


@KPU_CARRIES
def test_the_segments_of_the_kpu_change_where_they_start(carry: str) -> None:
    """Biases put the sum on each start and around it: channels have fine scales, and a coarse one decides the unit."""
    x, y = Grid(2.0**-3, 128), Grid(2.0**-3, 254)
    coarse, fine, unit = 2.0**-5, 2.0**-22, 2.0**-25
    everywhere = (-np.inf, np.inf)
    segments = kpu.compile_layer((x.scale, [coarse], y.scale), y.zero, np.zeros(1), 1 + 1, everywhere).segments
    starts = [start for start, *_ in segments[1:]]
    assert segments[0] == (-(2**35), 0, 0, 0)
    assert starts == sorted(starts)
    assert starts[0] == -254 * 2**22
    sums = [start + d for start in starts for d in (-(2**22), -(2**21), -1, 0, 1, 2, 2**20, 2**21, 3 * 2**20)]
    bias = np.array([0, *sums], dtype=np.int32)
    scales = (coarse, *[fine] * len(sums))
    weights = Constant(np.full([len(bias), 1, 1, 1], 129, np.uint8), Grid(coarse, 128), scales)
    units = Constant(bias, Grid(unit, 0, "int32"), tuple(x.scale * s for s in scales))
    model = one_node("Conv", [(x, [1, 1, 1, 1]), weights, units], y)
    zero = np.full([1, 1, 1, 1], x.zero, np.uint8)
    got = run_codes(model, {"a": zero}, target="kpu_k210", assume={"carry": carry}).ravel()[1:]
    layer = kpu.compile_layer((x.scale, list(scales), y.scale), y.zero, bias * unit, 1 + 1, everywhere)
    assert layer.segments == segments
    assert layer.norm[1 + 9 * 5][2] == starts[5] - 2**22
    sums = [add for _, _, add in layer.norm[1:]]
    equal(got, np.array([kpu.activate(v, segments, carry == "banker") for v in sums]))
    # The start itself belongs to the segment before; the last segments begin within two codes.
    assert sums[4 + 9 * 7] - sums[3 + 9 * 7] == 1
    assert got[3] == 0
    assert len(set(got.tolist())) > 3


def test_the_kpu_takes_weights_of_one_zero_point() -> None:
    weights = Constant(np.full([2, 1, 1, 1], 130), Grid(0.1, 128), (0.1, 0.2))
    model = one_node("Conv", [(Grid(0.1, 3), [1, 1, 1, 1]), weights], Grid(0.1, 3))
    feeds = {"a": np.ones([1, 1, 1, 1], np.float32)}
    nputwin.Session(model, target="kpu_k210").run(None, feeds)
    zeros = next(t for t in model.graph.initializer if t.name == "b_z")
    zeros.CopyFrom(numpy_helper.from_array(np.array([128, 127], np.uint8), "b_z"))
    with pytest.raises(nputwin.TargetUnsupportedError, match="one zero point"):
        nputwin.Session(model, target="kpu_k210").run(None, feeds)


def test_rounding_of_the_kpu_at_negative_halves() -> None:
    """-0.5 and -1.5 give -2 and -3 where an odd half step is carried."""
    assert [kpu.carry_shift(v, 1, False) for v in (-1, -3, 1, 3)] == [-2, -3, 1, 2]


REFUSED = [
    ("sophgo_bm1684", Grid(0.5, 3, "int8"), Grid(0.25, 0, "int8"), None),
    ("sophgo_bm1684x", Grid(0.5, 3, "int8"), Grid(0.25, 0, "int8"), None),
    ("sophgo_bm1684", Grid(0.5, 0, "int8"), Grid(0.25, 0, "int8"), (0.25, 0.5)),
    ("sophgo_cv18xx", Grid(0.5, 3, "int8"), Grid(0.25, 0, "int8"), (0.25, 0.5)),
    ("nvdla", Grid(0.5, 3, "int8"), Grid(0.25, 0, "int8"), None),
    ("nvdla", Grid(0.5, 0, "int8"), Grid(0.25, 0, "int8"), (0.25, 0.5)),
    ("kpu_k210", Grid(0.5, 0, "int8"), Grid(0.25, 0, "int8"), None),
    ("ethos_u55", Grid(0.5, 0, "int8"), Grid(0.25, 3, "int8"), None),
]


@pytest.mark.parametrize(("target", "x", "w", "channels"), REFUSED)
def test_encodings_that_a_chip_cannot_take(target: str, x: Grid, w: Grid, channels: tuple[float, ...] | None) -> None:
    weights = Constant(np.ones([2, 1, 1, 1]), w, channels)
    model = one_node("Conv", [(x, [1, 1, 1, 1]), weights], Grid(8.0, 0, "int8"))
    with pytest.raises(nputwin.TargetUnsupportedError):
        nputwin.Session(model, target=target).run(None, {"a": np.zeros([1, 1, 1, 1], np.float32)})


@pytest.mark.parametrize("target", ["tflite_micro", "litert_ref", "litert_xnnpack_x86"])
def test_real_biases_become_integers_as_the_converter_computes_them(target: str) -> None:
    """Times the float32 reciprocal of the scale, half away. Weights are zero; the output has the sum's step."""
    rng = fresh_rng()
    x, w = grid(rng, "int8", power=False, symmetric=True), grid(rng, "int8", power=False, symmetric=True)
    step = np.float32(x.scale) * np.float32(w.scale)
    ties = ((rng.integers(-120, 120, 3000) + 0.5) * np.float64(step)).astype(np.float32)
    bias = np.concatenate([ties, np.nextafter(ties, np.float32(np.inf)), np.nextafter(ties, np.float32(-np.inf))])
    weights = np.zeros((bias.size, 1, 1, 1), np.int8)
    model = one_node("Conv", [(x, [1, 1, 1, 1]), Constant(weights, w), Constant(bias)], Grid(float(step), 0, "int8"))
    scaled = (bias * np.float32(1.0 / float(step))).astype(np.float64)
    expected = np.sign(scaled) * np.floor(np.abs(scaled) + 0.5)
    codes = np.zeros((1, 1, 1, 1), np.int8)
    equal(run_codes(model, {"a": codes}, target=target), expected)
