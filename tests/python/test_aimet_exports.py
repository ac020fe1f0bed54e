"""Real exports of AIMET: they run, and the simulation target agrees with what AIMET and onnxruntime compute."""

from functools import cache
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from conftest import shared_folder

import nputwin

FOLDER = shared_folder("aimet-exports")
MODELS = sorted(FOLDER.glob("*/model_?.?.?.onnx")) if FOLDER else []
EXPORTS = sorted({path.parent for path in MODELS})

pytestmark = pytest.mark.skipif(not MODELS, reason="no folder shared/aimet-exports beside the repository")


def label(path: Path) -> str:
    return f"{path.parent.name}-{path.stem}"


@cache
def recorded(folder: Path) -> dict[str, np.ndarray]:
    with np.load(folder / "io.npz") as archive:
        return dict(archive)


def codes_of(tensor: nputwin.Dumped) -> np.ndarray:
    """Codes of a tensor of the simulation: its values lie on the grid, so quantizing them loses nothing."""
    assert tensor.encoding is not None
    codes = nputwin.quantize(tensor.value.astype(np.float32), tensor.encoding).astype(np.int64)
    np.testing.assert_array_equal(nputwin.dequantize(codes, tensor.encoding), tensor.value)
    return codes


@pytest.mark.parametrize("path", MODELS, ids=label)
def test_simulation_equals_the_recorded_output(path: Path) -> None:
    io = recorded(path.parent)
    session = nputwin.Session(path, target="fake_quant", encodings=path.with_suffix(".encodings"))
    tensor = session.dump({"x": io["x"]})["y"]
    (y,) = session.run(None, {"x": io["x"]})
    np.testing.assert_array_equal(y, tensor.value)
    ours = codes_of(tensor)
    theirs = nputwin.quantize(io["y"], tensor.encoding).astype(np.int64)
    difference = np.abs(ours - theirs)
    assert difference.max() <= 1
    assert np.count_nonzero(difference) <= max(1, 0.02 * difference.size)


@pytest.mark.parametrize("path", MODELS, ids=label)
def test_emulation_runs_and_stays_near_the_simulation(path: Path) -> None:
    io = recorded(path.parent)
    session = nputwin.Session(path, target="htp_v75", encodings=path.with_suffix(".encodings"))
    (y,) = session.run(None, {"x": io["x"]})
    assert y.shape == io["y"].shape
    assert np.corrcoef(y.ravel(), io["y"].ravel())[0, 1] > 0.9
    assert session.report().status in ("documented", "fitted", "assumed")


def quantizers(model: onnx.ModelProto) -> dict[str, onnx.NodeProto]:
    """QuantizeLinear nodes of values that the graph computes, by the name of the real tensor."""
    constants = {t.name for t in model.graph.initializer}
    constants |= {o for n in model.graph.node if n.op_type == "Constant" for o in n.output}
    nodes = [n for n in model.graph.node if n.op_type == "QuantizeLinear" and n.input[0] not in constants]
    return {node.input[0]: node for node in nodes}


def quantized_ancestors(model: onnx.ModelProto, names: set[str]) -> dict[str, set[str]]:
    """For each tensor of `names`, those of `names` that it depends on."""
    ancestors: dict[str, set[str]] = {}
    for node in model.graph.node:
        above: set[str] = set()
        for name in node.input:
            above |= ancestors.get(name, set()) | ({name} & names)
        for name in node.output:
            ancestors[name] = above
    return {name: ancestors.get(name, set()) for name in names}


def sources() -> list[Path]:
    """The QDQ form of each export, and where its encodings hold biases as the QDQ form does, the newest other form."""
    with_biases = [path for path in MODELS if path.stem >= "model_2"]
    newest = {path.parent: path for path in sorted(with_biases)}
    return sorted([folder / "model_qdq.onnx" for folder in EXPORTS] + list(newest.values()))


@pytest.mark.parametrize("path", sources(), ids=label)
def test_first_differences_from_onnxruntime_lie_on_ties(path: Path) -> None:
    folder = path.parent
    x = recorded(folder)["x"]
    encodings = path.with_suffix(".encodings") if path.stem != "model_qdq" else None
    session = nputwin.Session(path, target="fake_quant", encodings=encodings)
    dumped = session.dump({"x": x})
    ours = {alias: tensor for tensor in dumped.values() for alias in (tensor.name, *tensor.aliases)}

    model = onnx.load(folder / "model_qdq.onnx")
    nodes = quantizers(model)
    known = {o.name for o in model.graph.output} | {i.name for i in model.graph.input}
    for name, node in nodes.items():
        model.graph.output.extend(onnx.ValueInfoProto(name=n) for n in (name, node.output[0]) if n not in known)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    peer = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    outputs = [output.name for output in peer.get_outputs()]
    theirs = dict(zip(outputs, peer.run(outputs, {"x": x}), strict=True)) | {"x": x}

    matched = {name for name in nodes if name in ours and ours[name].encoding is not None}
    assert len(matched) >= 0.8 * len(nodes), f"no counterpart for {set(nodes) - matched}"
    differing = {}
    for name in matched:
        got, expected = codes_of(ours[name]), theirs[nodes[name].output[0]].astype(np.int64)
        differing[name] = got != expected
    ancestors = quantized_ancestors(model, matched)
    for name, mask in differing.items():
        if not mask.any() or any(differing[above].any() for above in ancestors[name]):
            continue
        encoding = ours[name].encoding
        scale = float(encoding.scale[0])
        steps = theirs[name][mask].astype(np.float64) / scale
        distance = np.abs(steps - np.floor(steps) - 0.5) * scale
        bound = 2.0**-20 * scale * (encoding.qmax - encoding.qmin)
        assert distance.max() <= bound, f"{name}: {distance.max() / bound:.1f} times too far from a tie"
