"""Every tensor of the benchmark networks in TFLite form equals that of LiteRT; so do the ONNX models made of them."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import shared_folder

import nputwin

pytest.importorskip("ai_edge_litert", reason="ai-edge-litert is not installed")

from ai_edge_litert.interpreter import OpResolverType
from tflite_files import litert, load, pack

FOLDER = shared_folder("models")
MODELS = sorted(FOLDER.glob("*.tflite")) if FOLDER else []

pytestmark = pytest.mark.skipif(not MODELS, reason="no folder shared/models beside the repository")


def codes_by_name(session: nputwin.Session, feeds: dict[str, Any]) -> dict[str, Any]:
    """Codes of every tensor, by all of its names."""
    dumped = session.dump(feeds)
    return {name: tensor.codes for tensor in dumped.values() for name in (tensor.name, *tensor.aliases)}


def feed_of(model: Any) -> dict[str, Any]:
    """Random codes for the one input, without the -1 of open batches."""
    graph = model.subgraphs[0]
    tensor = graph.tensors[graph.inputs[0]]
    rng = np.random.default_rng(0)
    return {tensor.name.decode(): rng.integers(-128, 128, tensor.shape, np.int8)}


def compare(ours: dict[str, Any], theirs: dict[str, Any]) -> int:
    """Fails where a tensor differs; gives the number of elements."""
    wrong = {}
    for name, expected in theirs.items():
        codes = ours[name]
        assert codes.shape == expected.shape, name
        assert codes.dtype == expected.dtype, name
        if differing := int(np.count_nonzero(codes != expected)):
            wrong[name] = differing
    assert not wrong, f"{sum(wrong.values())} elements differ, first in {next(iter(wrong))}: {wrong}"
    return sum(expected.size for expected in theirs.values())


def convert(path: Path, output: str) -> None:
    """Runs `nputwin convert`."""
    subprocess.run([sys.executable, "-m", "nputwin", "convert", str(path), "-o", output], check=True)


def results(model: Any) -> list[int]:
    """Tensors that operators write."""
    return [int(t) for op in model.subgraphs[0].operators for t in op.outputs]


@pytest.mark.parametrize("path", MODELS, ids=lambda path: path.stem)
def test_all_tensors_equal_the_reference_kernels(path: Path) -> None:
    model = load(path)
    feeds = feed_of(model)
    ours = codes_by_name(nputwin.Session(path, target="litert_ref"), feeds)
    # ai-edge-litert 2.3.0 aborts the process where it prepares the reference Softmax of int8: that node is left out.
    graph = model.subgraphs[0]
    softmax = graph.operators.pop()
    graph.outputs, model.signatureDefs = [int(softmax.inputs[0])], []
    names = {graph.tensors[t].name.decode() for t in results(model)}
    theirs = litert(pack(model), feeds, OpResolverType.BUILTIN_REF)
    assert compare(ours, {name: theirs[name] for name in names}) > 1_000_000


@pytest.mark.parametrize("path", MODELS, ids=lambda path: path.stem)
def test_all_tensors_equal_the_default_delegate(path: Path) -> None:
    model = load(path)
    feeds = feed_of(model)
    ours = codes_by_name(nputwin.Session(path, target="litert_xnnpack_x86"), feeds)
    original = litert(path.read_bytes(), feeds, OpResolverType.AUTO)
    compare(ours, original)
    # A delegate shows its outputs only: every result becomes one.
    model.subgraphs[0].outputs, model.signatureDefs = results(model), []
    assert compare(ours, litert(pack(model), feeds, OpResolverType.AUTO)) > 1_000_000


@pytest.mark.parametrize("path", MODELS, ids=lambda path: path.stem)
def test_ports_have_the_shapes_of_the_file(path: Path) -> None:
    session = nputwin.Session(path, target="litert_ref")
    (x,), (y,) = session.get_inputs(), session.get_outputs()
    assert (list(x.shape)[1:], x.dtype, list(y.shape)[1:]) == ([224, 224, 3], "int8", [1000])
    feeds = feed_of(load(path))
    (whole,) = session.run(None, {name: np.concatenate([v, v[:, ::-1]]) for name, v in feeds.items()})
    (single,) = session.run(None, feeds)
    assert np.array_equal(whole[:1], single)


@pytest.mark.parametrize("path", MODELS, ids=lambda path: path.stem)
def test_converted_models_give_the_same_integers(path: Path, tmp_path: Path) -> None:
    feeds = feed_of(load(path))
    expected = nputwin.Session(path, target="litert_ref").run(None, feeds)
    quantized = tmp_path / "quantized.onnx"
    convert(path, str(quantized))
    again = nputwin.Session(quantized, target="litert_ref")
    assert np.array_equal(again.run(None, feeds)[0], expected[0])
    folder = tmp_path / "float"
    convert(path, f"{folder}/")
    real = nputwin.Session(
        folder / f"{path.stem}.onnx", target="litert_ref", encodings=folder / f"{path.stem}.encodings"
    )
    assert np.array_equal(real.run_quantized(None, feeds)[0], expected[0])
