"""`Session`: onnxruntime's conventions, integers, dumps, explanations, reports."""

import signal
import threading
import time

import numpy as np
import onnxruntime
import pytest
from small_models import network, qdq_conv

import nputwin


@pytest.fixture(scope="module")
def samples() -> list[dict[str, np.ndarray]]:
    rng = np.random.default_rng(3)
    return [{"x": rng.standard_normal((2, 3, 8, 8)).astype(np.float32)} for _ in range(4)]


@pytest.fixture(scope="module")
def encodings(samples: list) -> dict:
    return nputwin.calibrate(network(), samples, target="htp_v75", per_channel=True)


def test_ports_follow_onnxruntime() -> None:
    model = network()
    peer = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    session = nputwin.Session(model, target="float")
    for ours, theirs in ((session.get_inputs(), peer.get_inputs()), (session.get_outputs(), peer.get_outputs())):
        assert [(p.name, p.shape, p.type) for p in ours] == [(p.name, p.shape, p.type) for p in theirs]


def test_float_target_computes_the_float_model(samples: list) -> None:
    model = network()
    peer = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (got,) = nputwin.Session(model, target="float").run(None, samples[0])
    (expected,) = peer.run(None, samples[0])
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4)


def test_models_come_as_path_bytes_or_message(tmp_path, samples: list) -> None:
    model = network()
    path = tmp_path / "model.onnx"
    path.write_bytes(model.SerializeToString())
    results = [
        nputwin.Session(source, target="float").run(["y"], samples[0])[0]
        for source in (path, str(path), model.SerializeToString(), model)
    ]
    for result in results[1:]:
        np.testing.assert_array_equal(result, results[0])


def test_outputs_are_chosen_by_name(samples: list) -> None:
    session = nputwin.Session(network(), target="float")
    assert len(session.run(["y", "y"], samples[0])) == 2
    assert session.run([], samples[0]) == []
    with pytest.raises(nputwin.InvalidError, match="no output 'z'"):
        session.run(["z"], samples[0])
    with pytest.raises(nputwin.InvalidError, match="a list, not a string"):
        session.run("y", samples[0])


@pytest.mark.parametrize("target", ["htp_v75", "fake_quant"])
def test_same_bits_for_threads_and_batches(target: str, encodings: dict) -> None:
    x = np.random.default_rng(5).standard_normal((5, 3, 8, 8)).astype(np.float32)
    one = nputwin.Session(network(), target=target, encodings=encodings, threads=1)
    assert one.threads == 1
    expected = one.run(None, {"x": x})[0]
    for threads in (2, 7):
        session = nputwin.Session(network(), target=target, encodings=encodings, threads=threads)
        np.testing.assert_array_equal(session.run(None, {"x": x})[0], expected)
    singles = [one.run(None, {"x": x[i : i + 1]})[0] for i in range(5)]
    np.testing.assert_array_equal(np.concatenate(singles), expected)


def test_the_memory_of_a_run_has_a_limit(encodings: dict, samples: list) -> None:
    small = nputwin.Session(network(), target="htp_v75", encodings=encodings, max_memory=16)
    with pytest.raises(nputwin.InvalidError, match="16 bytes may be used") as refused:
        small.run(None, samples[0])
    assert refused.value.code == "memory_limit"
    enough = nputwin.Session(network(), target="htp_v75", encodings=encodings, max_memory=1 << 30)
    assert enough.run(None, samples[0])[0].size


@pytest.mark.parametrize("target", ["htp_v75", "fake_quant"])
def test_integers_in_and_out(target: str, encodings: dict, samples: list) -> None:
    session = nputwin.Session(network(), target=target, encodings=encodings)
    (port,), (output,) = session.get_inputs(), session.get_outputs()
    assert port.encoding is not None
    dumped = session.dump(samples[0])
    codes = dumped["x"].codes
    if codes is None:
        codes = nputwin.quantize(dumped["x"].value, port.encoding)
    (y,) = session.run_quantized(None, {"x": codes})
    assert y.dtype == output.encoding.dtype
    np.testing.assert_array_equal(nputwin.dequantize(y, output.encoding), session.run(None, samples[0])[0])
    with pytest.raises(nputwin.InvalidError, match="takes uint8, not float32"):
        session.run_quantized(None, samples[0])


def test_integers_outside_the_grid_are_refused(samples: list) -> None:
    encodings = nputwin.calibrate(network(), samples, target="htp_v75", activation_bits=6)
    session = nputwin.Session(network(), target="fake_quant", encodings=encodings)
    codes = np.zeros((1, 3, 8, 8), np.uint8)
    codes[0, 0, 0, 5] = 64
    with pytest.raises(nputwin.InvalidError, match="code 64") as caught:
        session.run_quantized(None, {"x": codes})
    assert "element 5" in caught.value.location


def test_dump_holds_every_tensor() -> None:
    session = nputwin.Session(qdq_conv(), target="onnxruntime_cpu")
    x = np.random.default_rng(1).standard_normal((2, 3, 6, 6)).astype(np.float32)
    dumped = session.dump({"x": x})
    names = {alias: t for t in dumped.values() for alias in (t.name, *t.aliases)}
    assert {"x", "x_q", "c", "c_q", "y"} <= set(names)
    conv = names["c_q"]
    assert conv.codes.shape == conv.value.shape == (2, 2, 4, 4)
    np.testing.assert_array_equal(nputwin.dequantize(conv.codes, conv.encoding), conv.value)
    np.testing.assert_array_equal(session.run(None, {"x": x})[0], conv.value)


def test_explain_traces_one_element() -> None:
    session = nputwin.Session(qdq_conv(), target="onnxruntime_cpu")
    x = np.random.default_rng(1).standard_normal((1, 3, 6, 6)).astype(np.float32)
    dumped = session.dump({"x": x})
    name = next(t.name for t in dumped.values() if "c_q" in (t.name, *t.aliases))
    explanation = session.explain(name, [0, 1, 2, 3], {"x": x})
    assert explanation.index == 16 + 2 * 4 + 3
    assert explanation.node == ("conv", "Conv")
    assert explanation.trace["result"] == str(dumped[name].codes[0, 1, 2, 3])
    assert str(explanation.index) in str(explanation)
    assert "<table>" in explanation._repr_html_()
    with pytest.raises(nputwin.InvalidError, match="no tensor 'q'"):
        session.explain("q", 0, {"x": x})
    with pytest.raises(nputwin.InvalidError, match="element"):
        session.explain(name, 32, {"x": x})
    with pytest.raises(nputwin.InvalidError, match="element"):
        session.explain(name, [0, 0, 0, 4], {"x": x})


@pytest.mark.parametrize("target", ["float", "fake_quant", "onnxruntime_cpu", "htp_v75"])
def test_explain_traces_every_tensor_that_a_kernel_computes(encodings: dict, samples: list, target: str) -> None:
    session = nputwin.Session(network(), target=target, encodings=encodings)
    feeds = samples[0]
    traced = 0
    for name, tensor in session.dump(feeds).items():
        if name in feeds and tensor.codes is None:
            continue
        held = tensor.value if tensor.codes is None else tensor.codes
        for index in {0, held.size // 2, held.size - 1}:
            explanation = session.explain(name, index, feeds)
            assert explanation.trace["steps"], explanation
            assert held.dtype.type(explanation.trace["result"]) == held.reshape(-1)[index], explanation
            assert str(explanation).endswith(f"result   {explanation.trace['result']}")
            traced += 1
    assert traced > 10


def test_report_names_rules_and_evidence(encodings: dict) -> None:
    report = nputwin.Session(network(), target="htp_v75", encodings=encodings).report()
    conv = next(node for node in report.nodes if node.name == "conv1")
    assert (conv.op_type, conv.mode) == ("Conv", "integer")
    assert conv.status in ("executed", "source", "documented", "fitted", "assumed")
    assert any("one kernel" in note.text for note in report.notes)
    assert "conv1" in report._repr_html_()


def test_strict_refuses_assumptions(encodings: dict, samples: list) -> None:
    session = nputwin.Session(network(), target="htp_v75", encodings=encodings, strict=True)
    with pytest.raises(nputwin.UnspecifiedError, match="assumed"):
        session.run(None, samples[0])


def test_assumptions_change_the_target(encodings: dict, samples: list) -> None:
    default = nputwin.Session(network(), target="htp_v75", encodings=encodings)
    other = nputwin.Session(network(), target="htp_v75", encodings=encodings, assume={"Add.rule": "A1"})
    assert other.run(None, samples[0])[0].shape == default.run(None, samples[0])[0].shape
    with pytest.raises(nputwin.InvalidError, match="no alternative 'A99'"):
        nputwin.Session(network(), target="htp_v75", assume={"Add": "A99"})


def test_targets() -> None:
    names = {target.name for target in nputwin.targets()}
    assert {"float", "fake_quant", "onnxruntime_cpu", "tflite_micro", "htp_v75"} <= names
    assert all(len(target.hash) == 64 for target in nputwin.targets())


def test_a_session_serves_several_threads(encodings: dict, samples: list) -> None:
    session = nputwin.Session(network(), target="htp_v75", encodings=encodings)
    expected = [session.run(None, sample)[0] for sample in samples]
    got: dict[int, np.ndarray] = {}

    def work(i: int) -> None:
        got[i] = session.run(None, samples[i % 4])[0]

    threads = [threading.Thread(target=work, args=(i,)) for i in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for i in range(12):
        np.testing.assert_array_equal(got[i], expected[i % 4])


def test_signals_stop_a_run(encodings: dict) -> None:
    session = nputwin.Session(network(), target="fake_quant", encodings=encodings, threads=1)
    x = np.zeros((4000, 3, 8, 8), np.float32)

    def stop(*_: object) -> None:
        raise InterruptedError("stopped by the handler")

    previous = signal.signal(signal.SIGALRM, stop)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.08)
        started = time.monotonic()
        with pytest.raises(InterruptedError, match="stopped by the handler"):  # noqa: PT012
            while time.monotonic() - started < 20:
                session.run(None, {"x": x})
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
    assert session.run(None, {"x": x[:1]})[0].shape == (1, 5)
