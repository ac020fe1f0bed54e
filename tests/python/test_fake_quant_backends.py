"""Targets that simulate in float, against torch itself and against second implementations of AIMET's two backends."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest
import torch
from conftest import fresh_rng
from onnx import TensorProto, helper
from small_models import constant, value

import nputwin

Quantizer = Callable[[np.ndarray, np.ndarray, np.ndarray, int, int], np.ndarray]


def model(scale: np.ndarray, zero: np.ndarray, channels: int) -> onnx.ModelProto:
    """An identity whose result is quantized; the scales of a channel wise one lie along axis 1."""
    axis = {"axis": 1} if scale.ndim else {}
    tensors = [constant("s", scale), constant("z", zero)]
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"], **axis),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["y"], **axis),
    ]
    ports = [value("x", [None, channels], TensorProto.FLOAT)], [value("y", [None, channels], TensorProto.FLOAT)]
    graph = helper.make_graph(nodes, "g", *ports, tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


def torch_fake_quant(x: np.ndarray, scale: np.ndarray, zero: np.ndarray, low: int, high: int) -> np.ndarray:
    data = torch.from_numpy(x)
    if scale.ndim:
        zeros = torch.from_numpy(zero.astype(np.int32))
        return torch.fake_quantize_per_channel_affine(data, torch.from_numpy(scale), zeros, 1, low, high).numpy()
    return torch.fake_quantize_per_tensor_affine(data, float(scale), int(zero), low, high).numpy()


def aimet_torch(x: np.ndarray, scale: np.ndarray, zero: np.ndarray, low: int, high: int) -> np.ndarray:
    """round(x / scale) - offset, clamped; then (code + offset) · scale."""
    offset = -zero.astype(np.float32)
    codes = np.clip(np.rint(x / scale) - offset, low, high).astype(np.float32)
    return (codes + offset) * scale


def aimet_onnx(x: np.ndarray, scale: np.ndarray, zero: np.ndarray, low: int, high: int) -> np.ndarray:
    """Clamped to [min, max]; x / delta - offset; C's round; delta · (code + offset). Codes count from 0."""
    offset = (low - zero).astype(np.float32)
    delta = scale.astype(np.float64)
    least, most = (delta * offset).astype(np.float32), (delta * (offset + (high - low))).astype(np.float32)
    value = (np.maximum(np.minimum(x, most), least) / scale - offset).astype(np.float32)
    codes = np.trunc(value.astype(np.float64) + 0.5).astype(np.float32)
    return scale * (codes + offset)


BACKENDS: dict[str, Quantizer] = {
    "torch_fake_quant": torch_fake_quant,
    "aimet_torch": aimet_torch,
    "aimet_onnx": aimet_onnx,
}


def values(rng: np.random.Generator, scale: np.ndarray, channels: int) -> np.ndarray:
    """Ties and their neighbours on both sides, and some of any size."""
    steps = np.repeat(np.arange(-300, 301)[:, None] + 0.5, channels, axis=1) * scale
    ties = steps.astype(np.float32)
    near = [np.nextafter(ties, np.float32(side)) for side in (-np.inf, np.inf)]
    wild = rng.standard_normal([400, channels]) * 10.0 ** rng.integers(-6, 6, [400, channels])
    return np.concatenate([ties, *near, wild.astype(np.float32)])


@pytest.mark.parametrize("per_channel", [False, True], ids=["tensor", "channel"])
@pytest.mark.parametrize("dtype", ["uint8", "int8"])
@pytest.mark.parametrize("target", BACKENDS)
def test_every_tie(target: str, dtype: str, per_channel: bool) -> None:
    rng = fresh_rng()
    info = np.iinfo(dtype)
    for power in (True, False, False):
        shape = 5 if per_channel else ()
        scale = np.float32(2.0 ** rng.integers(-8, 3, shape) if power else rng.uniform(0.001, 2.0, shape))
        zero = np.asarray(rng.integers(info.min, info.max + 1, shape), dtype)
        x = values(rng, np.asarray(scale), 5)
        (ours,) = nputwin.Session(model(np.asarray(scale), zero, 5), target=target, threads=1).run(None, {"x": x})
        expected = BACKENDS[target](x, np.asarray(scale), zero.astype(np.int64), int(info.min), int(info.max))
        differing = np.flatnonzero(ours != expected)
        assert not differing.size, (target, x.ravel()[differing[:4]], ours.ravel()[differing[:4]])


def test_the_backends_disagree_on_ties() -> None:
    """Codes of +0.5, 1.5, -0.5 and -1.5 steps around an odd zero point."""
    x = np.float32([[0.5, 1.5, -0.5, -1.5, 2.5]])
    grid = np.asarray(np.float32(1.0)), np.asarray(3, np.uint8)
    got = {
        t: nputwin.Session(model(*grid, 5), target=t, threads=1).run(None, {"x": x})[0].tolist()[0] for t in BACKENDS
    }
    assert got == {
        "torch_fake_quant": [0.0, 2.0, 0.0, -2.0, 2.0],
        "aimet_torch": [0.0, 2.0, 0.0, -2.0, 2.0],
        "aimet_onnx": [1.0, 2.0, 0.0, -1.0, 3.0],
    }
