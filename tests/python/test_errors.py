"""Wrong input gives an exception of its kind, with a text of its own."""

import pickle
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper
from small_models import constant, model, network, value

import nputwin

X = np.zeros((1, 3, 8, 8), np.float32)


def session(source=None, **options) -> nputwin.Session:
    return nputwin.Session(network() if source is None else source, target=options.pop("target", "float"), **options)


def unchecked(graph: onnx.GraphProto) -> onnx.ModelProto:
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])


def unknown_operator() -> onnx.ModelProto:
    nodes = [helper.make_node("Frobnicate", ["x"], ["y"])]
    return unchecked(helper.make_graph(nodes, "g", [value("x", [1])], [value("y", [1])]))


def bad_reshape() -> onnx.ModelProto:
    nodes = [helper.make_node("Reshape", ["x", "s"], ["y"])]
    return model(nodes, [value("x", [4])], [value("y", [3])], [constant("s", np.int64([3]))])


def cycle() -> onnx.ModelProto:
    nodes = [helper.make_node("Relu", ["b"], ["a"]), helper.make_node("Relu", ["a"], ["b"])]
    return unchecked(helper.make_graph(nodes, "g", [value("x", [1])], [value("b", [1])]))


ENTRY = {
    "name": "x",
    "enc_type": "PER_TENSOR",
    "dtype": "INT",
    "bw": 8,
    "is_sym": False,
    "scale": [0.1],
    "offset": [-3],
}


def encodings(**changes) -> dict:
    return {"version": "1.0.0", "activation_encodings": [{**ENTRY, **changes}], "param_encodings": []}


CASES = {
    "no file": (lambda: session("/nonexistent/model.onnx"), nputwin.FileError),
    "a folder": (lambda: session(Path("/")), nputwin.NputwinError),
    "no bytes": (lambda: session(b""), nputwin.InvalidError),
    "noise": (lambda: session(b"\xff" * 99), nputwin.InvalidError),
    "cut short": (lambda: session(network().SerializeToString()[:-40]), nputwin.InvalidError),
    "a number for a model": (lambda: session(3), nputwin.InvalidError),
    "unknown operator": (
        lambda: session(unknown_operator()).run(None, {"x": np.zeros(1, np.float32)}),
        nputwin.UnsupportedError,
    ),
    "wrong reshape": (lambda: session(bad_reshape()).run(None, {"x": np.zeros(4, np.float32)}), nputwin.InvalidError),
    "cycle": (lambda: session(cycle()), nputwin.InvalidError),
    "unknown target": (lambda: session(target="htp_v57"), nputwin.NputwinError),
    "target is not a spec": (lambda: session(target=__file__), nputwin.InvalidError),
    "unknown rule": (lambda: session(target="htp_v75", assume={"Ad": "A1"}), nputwin.InvalidError),
    "missing feed": (lambda: session().run(None, {}), nputwin.InvalidError),
    "misspelt feed": (lambda: session().run(None, {"X": X}), nputwin.InvalidError),
    "wrong type": (lambda: session().run(None, {"x": X.astype(np.float64)}), nputwin.InvalidError),
    "wrong rank": (lambda: session().run(None, {"x": X[0]}), nputwin.InvalidError),
    "wrong size": (lambda: session().run(None, {"x": X[:, :2]}), nputwin.InvalidError),
    "text": (lambda: session().run(None, {"x": "abc"}), nputwin.InvalidError),
    "unknown output": (lambda: session().run(["z"], {"x": X}), nputwin.InvalidError),
    "no encodings file": (lambda: session(encodings="/nonexistent.encodings"), nputwin.FileError),
    "encodings version": (lambda: session(encodings={"version": "9.9"}), nputwin.InvalidError),
    "encodings without version": (lambda: session(encodings={}), nputwin.InvalidError),
    "encodings not JSON": (lambda: session(encodings={"version": {1, 2}}), nputwin.InvalidError),
    "encodings of a wrong type": (lambda: session(encodings=7), nputwin.InvalidError),
    "negative scale": (lambda: session(encodings=encodings(scale=[-0.1])), nputwin.InvalidError),
    "wide bitwidth": (lambda: session(encodings=encodings(bw=77)), nputwin.InvalidError),
    "offset outside": (lambda: session(encodings=encodings(offset=[7])), nputwin.InvalidError),
    "unmatched entry": (lambda: session(encodings=encodings(name="nobody")), nputwin.InvalidError),
}


@pytest.mark.parametrize("case", CASES)
def test_wrong_input_gives_an_exception_of_its_kind(case: str) -> None:
    run, kind = CASES[case]
    with pytest.raises(kind) as caught:
        run()
    error = caught.value
    assert error.code
    assert error.message in str(error)
    assert f"[{error.code}]" in str(error)


def test_every_case_has_a_text_of_its_own() -> None:
    texts: dict[str, str] = {}
    for case, (run, _) in CASES.items():
        with pytest.raises(nputwin.NputwinError) as caught:
            run()
        texts.setdefault(caught.value.message + str(caught.value.location), case)
    assert len(texts) == len(CASES)


def test_classes_are_those_that_python_programs_expect() -> None:
    assert issubclass(nputwin.InvalidError, ValueError)
    assert issubclass(nputwin.UnsupportedError, NotImplementedError)
    assert issubclass(nputwin.FileError, OSError)
    with pytest.raises(OSError, match="No such file"):
        session("/nonexistent/model.onnx")


def test_exceptions_survive_pickling() -> None:
    with pytest.raises(nputwin.InvalidError) as caught:
        session().run(None, {"X": X})
    twin = pickle.loads(pickle.dumps(caught.value))
    assert str(twin) == str(caught.value)
    assert (twin.code, twin.help) == (caught.value.code, caught.value.help)
    assert twin.help == "did you mean 'x'?"
