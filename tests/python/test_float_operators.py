"""Operators that the node cases of `onnx` cover thinly, against onnxruntime on random inputs.

Both compute in their own order, so reals agree within a few units in the last place; integers are equal.
"""

import numpy as np
import pytest

import nputwin

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

from onnx import helper, numpy_helper  # noqa: E402


def check(op_type, feeds, outputs=1, opset=17, constants=(), skipped=(), tolerance=2e-5, **attributes):
    """Runs one node both ways. `feeds` maps input names to arrays, in order; None leaves an input out."""
    kinds = {k: helper.np_dtype_to_tensor_dtype(v.dtype) for k, v in feeds.items() if v is not None}
    names = [k if v is not None else "" for k, v in feeds.items()]
    results = ["" if i in skipped else f"y{i}" for i in range(outputs)]
    node = helper.make_node(op_type, names, results, name="node", **attributes)
    graph = helper.make_graph(
        [node],
        "g",
        [helper.make_tensor_value_info(k, kinds[k], feeds[k].shape) for k in kinds if k not in constants],
        [helper.make_empty_tensor_value_info(y) for y in results if y],
        [numpy_helper.from_array(feeds[k], k) for k in constants],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    values = {k: v for k, v in feeds.items() if v is not None and k not in constants}
    reference = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    expected = reference.run(None, values)
    got = nputwin.Session(model, target="float", threads=1).run(None, values)
    for a, b in zip(got, expected, strict=True):
        assert a.dtype == b.dtype
        assert a.shape == b.shape
        if b.dtype.kind == "f":
            np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)
        else:
            np.testing.assert_array_equal(a, b)


def normal(rng, *shape):
    return rng.standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize(("op_type", "gates"), [("RNN", 1), ("GRU", 3), ("LSTM", 4)])
def test_recurrent_cells(op_type, gates, direction, rng):
    steps, batch, size, hidden = 5, 3, 4, 6
    ways = 2 if direction == "bidirectional" else 1
    feeds = {
        "x": normal(rng, steps, batch, size),
        "w": normal(rng, ways, gates * hidden, size),
        "r": normal(rng, ways, gates * hidden, hidden),
        "b": normal(rng, ways, 2 * gates * hidden),
        "lengths": np.array([5, 2, 4], np.int32),
        "h": normal(rng, ways, batch, hidden),
    }
    if op_type == "LSTM":
        feeds |= {"c": normal(rng, ways, batch, hidden), "p": normal(rng, ways, 3 * hidden)}
    check(op_type, feeds, 3 if op_type == "LSTM" else 2, hidden_size=hidden, direction=direction, clip=1.5)


def test_gru_that_resets_behind_the_product(rng):
    feeds = {"x": normal(rng, 4, 2, 3), "w": normal(rng, 1, 15, 3), "r": normal(rng, 1, 15, 5), "b": normal(rng, 1, 30)}
    check("GRU", feeds, 2, hidden_size=5, linear_before_reset=1)


def test_lstm_with_other_activations(rng):
    feeds = {"x": normal(rng, 4, 2, 3), "w": normal(rng, 1, 20, 3), "r": normal(rng, 1, 20, 5)}
    names = ["HardSigmoid", "LeakyRelu", "Softsign"]
    check("LSTM", feeds, 3, hidden_size=5, activations=names, activation_alpha=[0.3, 0.1], activation_beta=[0.4])


@pytest.mark.parametrize("mode", ["bilinear", "nearest", "bicubic"])
@pytest.mark.parametrize("padding", ["zeros", "border", "reflection"])
@pytest.mark.parametrize("align", [0, 1])
def test_grid_sample(mode, padding, align, rng):
    grid = rng.uniform(-1.8, 1.8, (2, 7, 5, 2)).astype(np.float32)
    feeds = {"x": normal(rng, 2, 3, 6, 4), "grid": grid}
    check("GridSample", feeds, opset=16, mode=mode, padding_mode=padding, align_corners=align, tolerance=1e-4)


@pytest.mark.parametrize("mode", ["avg", "max"])
@pytest.mark.parametrize("ratio", [0, 2])
@pytest.mark.parametrize("transform", ["half_pixel", "output_half_pixel"])
def test_roi_align(mode, ratio, transform, rng):
    corners = rng.uniform(-2, 20, (6, 4)).astype(np.float32)
    feeds = {
        "x": normal(rng, 2, 3, 9, 11),
        "rois": np.concatenate([corners[:, :2], corners[:, :2] + np.abs(corners[:, 2:])], axis=1),
        "batch": np.array([0, 1, 1, 0, 1, 0], np.int64),
    }
    sizes = {"output_height": 3, "output_width": 4, "sampling_ratio": ratio, "spatial_scale": 0.6}
    check("RoiAlign", feeds, mode=mode, coordinate_transformation_mode=transform, **sizes)


@pytest.mark.parametrize("centered", [0, 1])
def test_non_max_suppression(centered, rng):
    boxes = rng.uniform(0, 1, (2, 40, 4)).astype(np.float32)
    feeds = {
        "boxes": boxes,
        "scores": rng.uniform(0, 1, (2, 3, 40)).astype(np.float32).round(1),
        "most": np.array([9], np.int64),
        "iou": np.array([0.3], np.float32),
        "least": np.array([0.25], np.float32),
    }
    check("NonMaxSuppression", feeds, constants=tuple(feeds), center_point_box=centered)


@pytest.mark.parametrize(
    ("equation", "shapes"),
    [
        ("bhid,bhjd->bhij", [(2, 3, 4, 5), (2, 3, 6, 5)]),
        ("...ij,...jk->...ik", [(2, 1, 3, 4), (1, 5, 4, 2)]),
        ("abc,cd,da->b", [(2, 3, 4), (4, 5), (5, 2)]),
        ("ii->i", [(4, 4)]),
        ("i,j->ji", [(3,), (4,)]),
        ("bij,bj", [(2, 3, 4), (2, 4)]),
    ],
)
def test_einsum(equation, shapes, rng):
    feeds = {f"x{i}": normal(rng, *shape) for i, shape in enumerate(shapes)}
    check("Einsum", feeds, equation=equation)


@pytest.mark.parametrize("largest", [0, 1])
@pytest.mark.parametrize("axis", [0, -1])
def test_top_k_takes_the_first_of_equals(largest, axis, rng):
    feeds = {"x": rng.integers(-3, 3, (6, 5, 7)).astype(np.float32), "k": np.array([4], np.int64)}
    check("TopK", feeds, 2, constants=("k",), largest=largest, axis=axis)


@pytest.mark.parametrize("reduction", ["none", "add", "mul", "min", "max"])
def test_scatter(reduction, rng):
    x = rng.integers(-9, 9, (4, 5, 3)).astype(np.float32)
    tuples = np.stack(np.unravel_index(rng.permutation(20)[:6], (4, 5)), axis=-1)
    feeds = {"x": x, "indices": tuples.astype(np.int64), "updates": normal(rng, 6, 3)}
    check("ScatterND", feeds, opset=18, reduction=reduction)
    index = np.argsort(rng.uniform(size=(4, 5, 3)), axis=1)[:, :2].astype(np.int64) - 5
    check("ScatterElements", {"x": x, "i": index, "u": normal(rng, 4, 2, 3)}, opset=18, axis=1, reduction=reduction)


@pytest.mark.parametrize("size", [1, 3, 7])
def test_lrn(size, rng):
    check("LRN", {"x": normal(rng, 2, 5, 3, 2)}, size=size, alpha=0.1, beta=0.6, bias=1.2)


@pytest.mark.parametrize("rank", [1, 3])
def test_convolution_and_pools_of_one_and_three_dimensions(rank, rng):
    x = normal(rng, 2, 4, *(7, 6, 5)[:rank])
    w = normal(rng, 6, 2, *(3, 2, 3)[:rank])
    pads = [1] * rank + [0] * rank
    check("Conv", {"x": x, "w": w, "b": normal(rng, 6)}, group=2, pads=pads, strides=[2] * rank)
    transposed = {"x": x, "w": normal(rng, 4, 3, *(3, 2, 3)[:rank])}
    check("ConvTranspose", transposed, group=2, pads=pads, strides=[2] * rank, tolerance=1e-4)
    for op_type in ("MaxPool", "AveragePool", "LpPool"):
        check(op_type, {"x": x}, kernel_shape=[2] * rank, strides=[2] * rank, pads=pads)


def test_group_query_attention_with_a_cache(rng):
    q, k, v = normal(rng, 2, 4, 3, 8), normal(rng, 2, 2, 3, 8), normal(rng, 2, 2, 3, 6)
    past = {"pk": normal(rng, 2, 2, 5, 8), "pv": normal(rng, 2, 2, 5, 6)}
    mask = rng.uniform(size=(3, 8)) > 0.2
    check("Attention", {"q": q, "k": k, "v": v, "mask": mask, **past}, 3, opset=23, softcap=2.0)
