"""Placement rules: `placement` and `check` against real exports of AIMET, and against calibration."""

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from conftest import shared_folder
from small_models import network

import nputwin

FOLDER = shared_folder("aimet-exports")
EXPORTS = sorted(path.parent for path in FOLDER.glob("*/model_1.0.0.onnx")) if FOLDER else []
SPECS = Path(__file__).parents[2] / "specs" / "base"

needs_exports = pytest.mark.skipif(not EXPORTS, reason="no folder shared/aimet-exports beside the repository")


def target(export: Path) -> str:
    """The rules that the export was made with: per tensor, without given ends of Sigmoid and Softmax, is HTP v66."""
    return str(SPECS / "placement_htp_v66.toml") if export.name == "zoo_dsp" else "htp_v75"


@cache
def entries(export: Path) -> dict[str, dict[str, Any]]:
    file = json.loads((export / "model_1.0.0.encodings").read_text())
    return {entry["name"]: entry for entry in file["activation_encodings"] + file["param_encodings"]}


@cache
def sites(export: Path) -> dict[str, dict[str, Any]]:
    listed = nputwin.placement(export / "model_1.0.0.onnx", target(export))
    assert len({site["tensor"] for site in listed}) == len(listed)
    return {site["tensor"]: site for site in listed}


def only_in_export(name: str) -> bool:
    """What AIMET's exporter names beyond the quantizers of its simulation.

    A torch module is one quantizer: of ReLU6, exported as Clip, also the bounds and the convolution's output bear it.
    A weight that two modules share is also named as it is before the Identity that copies it. A constant scalar has an
    entry too, which `aimet::quantize_dequantize` in its name stands for.
    """
    constants = ("Constant_output_0", "Constant_1_output_0")
    return name.endswith(constants) or name == "n1.weight" or name.startswith("aimet::quantize_dequantize")


def only_in_rules(name: str) -> bool:
    """GELU is one torch module, and five ONNX operators."""
    return name.startswith("/ge/")


def scaled(export: Path) -> dict[str, str]:
    """Tensors that by our rules have the codes of another one in another scale, and that one."""
    prefix, suffix = "has the codes of '", "' in another scale"
    reasons = {name: site["reason"] for name, site in sites(export).items() if site["reason"].endswith(suffix)}
    return {name: reason.removeprefix(prefix).removesuffix(suffix) for name, reason in reasons.items()}


@needs_exports
@pytest.mark.parametrize("export", EXPORTS, ids=lambda path: path.name)
def test_products_with_a_scalar_scale_the_grid(export: Path) -> None:
    """The exporter derives their entries: the offset of the operand, and its scale times the scalar."""
    graph = onnx.load(export / "model_1.0.0.onnx").graph
    scalars = {i.name: onnx.numpy_helper.to_array(i) for i in graph.initializer}
    scalars |= {
        n.output[0]: onnx.numpy_helper.to_array(n.attribute[0].t) for n in graph.node if n.op_type == "Constant"
    }
    compared = 0
    for node in graph.node:
        operand = scaled(export).get(node.output[0])
        # The operand has no entry inside of a torch module.
        if operand is None or operand not in entries(export):
            continue
        ours, theirs = entries(export)[operand], entries(export)[node.output[0]]
        scalar = float(next(scalars[name] for name in node.input if name in scalars))
        factor = 1.0 / scalar if node.op_type == "Div" else scalar
        np.testing.assert_allclose(theirs["scale"], np.multiply(ours["scale"], factor), rtol=1e-6)
        assert theirs["offset"] == ours["offset"]
        compared += 1
    assert compared == (2 if export.name.startswith("block") else 0)


@needs_exports
@pytest.mark.parametrize("export", EXPORTS, ids=lambda path: path.name)
def test_the_same_tensors_are_quantized(export: Path) -> None:
    ours = {name for name, site in sites(export).items() if site["quantized"]}
    theirs = set(entries(export))
    clipped = {name for name in theirs if sites(export).get(name, {}).get("reason") == "inside Conv + Clip"}
    derived = set(scaled(export))
    assert {name for name in theirs - ours - clipped - derived if not only_in_export(name)} == set()
    assert {name for name in ours - theirs if not only_in_rules(name)} == set()
    for name in clipped:
        end = entries(export)[name.replace(".0/Conv", ".2/Clip").replace("c1/Conv", "r1/Clip")]
        assert entries(export)[name]["scale"] == end["scale"]
    assert len(ours & theirs) >= 10


@needs_exports
@pytest.mark.parametrize("export", EXPORTS, ids=lambda path: path.name)
def test_symmetry_and_granularity_are_the_same(export: Path) -> None:
    shared = [(sites(export)[name], entry) for name, entry in entries(export).items() if name in sites(export)]
    for site, entry in shared:
        if not site["quantized"]:
            continue
        centred = all(offset == -(1 << (entry["bw"] - 1)) for offset in entry["offset"])
        # An asymmetric range may lie around zero by chance; weights of normalizations never do.
        assert centred or not site["symmetric"], site
        if site["role"] == "parameter":
            assert centred == site["symmetric"], site
        assert (entry["enc_type"] == "PER_CHANNEL") == (site["axis"] is not None), site
    assert any(site["axis"] is not None for site, _ in shared) == (export.name != "zoo_dsp")


@needs_exports
@pytest.mark.parametrize("export", EXPORTS, ids=lambda path: path.name)
def test_given_ends_and_ties_are_the_same(export: Path) -> None:
    model, encodings = export / "model_1.0.0.onnx", export / "model_1.0.0.encodings"
    findings = nputwin.check(model, target=target(export), encodings=encodings)
    found = {(finding["code"], finding["place"]) for finding in findings}
    expected = set()
    if export.name.startswith("zoo"):
        # AIMET for ONNX ties the input and output of AveragePool; AIMET for torch, which made the export, does not.
        expected.add(("placement_tied", "/ap/AveragePool_output_0"))
    assert {(code, place) for code, place in found if not only_in_rules(place)} == expected
    ends = {site["tensor"]: (site["min"], site["max"]) for site in sites(export).values() if site["max"] is not None}
    for name, (low, high) in ends.items():
        entry = entries(export)[name]
        lowest = entry["offset"][0] * entry["scale"][0]
        highest = (entry["offset"][0] + (1 << entry["bw"]) - 1) * entry["scale"][0]
        np.testing.assert_allclose((lowest, highest), (low, high), atol=entry["scale"][0])


@needs_exports
def test_the_rules_tell_generations_apart() -> None:
    """Under the rules of v75, what was made for v66 lacks scales per channel and given ends."""
    export = next(path for path in EXPORTS if path.name == "zoo_dsp")
    findings = nputwin.check(export / "model_1.0.0.onnx", target="htp_v75", encodings=export / "model_1.0.0.encodings")
    places = {finding["place"] for finding in findings if finding["code"] == "placement_constraint"}
    assert places == {"/sg/Sigmoid_output_0", "y"}


@needs_exports
@pytest.mark.parametrize("name", ["zoo_w8a8", "zoo_w4a16", "residual_d3", "block_w8a16"])
def test_calibration_gives_the_entries_and_grids_of_the_export(name: str) -> None:
    export = next(path for path in EXPORTS if path.name == name)
    first = next(iter(entries(export).values()))
    weight_bits = 4 if name == "zoo_w4a16" else 8
    with np.load(export / "io.npz") as archive:
        samples = [{"x": archive["x"]}]
    file = nputwin.calibrate(
        export / "model_1.0.0.onnx",
        samples,
        target="htp_v75",
        activation_bits=first["bw"],
        weight_bits=weight_bits,
        formula="aimet_torch",
    )
    ours = {e["name"]: e for e in file["activation_encodings"] + file["param_encodings"]}
    rules = sites(export)
    compared = 0
    for entry_name, theirs in entries(export).items():
        if entry_name not in ours:
            assert only_in_export(entry_name) or not rules[entry_name]["reason"].startswith("by rule"), entry_name
            continue
        mine = ours[entry_name]
        assert (mine["bw"], mine["enc_type"]) == (theirs["bw"], theirs["enc_type"]), entry_name
        if rules[entry_name]["role"] == "parameter":
            # Weights do not depend on samples: the same scales, to the last printed digit of a float32.
            np.testing.assert_allclose(mine["scale"], theirs["scale"], rtol=1e-6)
            assert mine["offset"] == theirs["offset"]
            compared += 1
    assert compared >= 3


def test_check_and_placement_agree_with_calibration() -> None:
    """What is calibrated for a target keeps its rules, and breaks those of another."""
    samples = [{"x": np.random.default_rng(0).standard_normal((1, 3, 8, 8)).astype(np.float32)}]
    model = network()
    encodings = nputwin.calibrate(model, samples, target="htp_v75")
    assert nputwin.check(model, target="htp_v75", encodings=encodings) == []
    codes = {finding["code"] for finding in nputwin.check(model, target="tflite_micro", encodings=encodings)}
    assert "placement_sign" in codes
    missing = nputwin.check(model, target="htp_v75")
    assert {finding["code"] for finding in missing} == {"placement_missing"}
    assert all(set(finding) == {"code", "place", "message", "help"} for finding in missing)
    quantized = {site["tensor"] for site in nputwin.placement(model, "htp_v75") if site["quantized"]}
    assert {finding["place"] for finding in missing} <= quantized


def test_errors_are_typed() -> None:
    with pytest.raises(nputwin.InvalidError) as caught:
        nputwin.placement(network(), "htp_v57")
    assert caught.value.code == "target_unknown"
