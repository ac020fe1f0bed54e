"""`calibrate` and `compare`."""

import json

import numpy as np
import pytest
from small_models import network

import nputwin


def feeds(count: int = 3) -> list[dict[str, np.ndarray]]:
    rng = np.random.default_rng(9)
    return [{"x": rng.standard_normal((2, 3, 8, 8)).astype(np.float32)} for _ in range(count)]


def test_calibration_covers_the_observed_range(tmp_path) -> None:
    samples = feeds()
    encodings = nputwin.calibrate(network(), iter(samples), target="htp_v75")
    entry = next(e for e in encodings["activation_encodings"] if e["name"] == "x")
    low, high = min(s["x"].min() for s in samples), max(s["x"].max() for s in samples)
    grid = nputwin.Encoding.from_min_max(float(low), float(high), formula="aimet_onnx")
    assert entry["scale"] == grid.scale.tolist()
    assert entry["offset"] == [-int(grid.zero_point[0])]
    path = tmp_path / "x.encodings"
    path.write_text(json.dumps(encodings))
    results = [
        nputwin.Session(network(), target="htp_v75", encodings=e).run(None, samples[0])[0] for e in (encodings, path)
    ]
    np.testing.assert_array_equal(*results)


def test_percentiles_are_narrower() -> None:
    def range_of_input(**options) -> float:
        encodings = nputwin.calibrate(network(), feeds(), target="htp_v75", **options)
        return next(e for e in encodings["activation_encodings"] if e["name"] == "x")["scale"][0]

    assert range_of_input(percentile=99.0) < range_of_input()


def test_calibration_refuses_what_it_cannot_use() -> None:
    with pytest.raises(nputwin.InvalidError) as caught:
        nputwin.calibrate(network(), [], target="htp_v75")
    assert caught.value.code == "calibrate_empty"
    sample = feeds(1)[0]
    sample["x"][0, 0, 0, 0] = np.nan
    with pytest.raises(nputwin.InvalidError) as caught:
        nputwin.calibrate(network(), [sample], target="htp_v75")
    assert caught.value.code == "calibrate_nan"

    def broken():
        yield feeds(1)[0]
        raise KeyError("the data set ended")

    with pytest.raises(KeyError, match="the data set ended"):
        nputwin.calibrate(network(), broken(), target="htp_v75")


def test_compare_two_targets() -> None:
    samples = feeds()
    encodings = nputwin.calibrate(network(), samples, target="htp_v75")
    same = nputwin.compare(network(), "htp_v75", "htp_v75", samples, encodings=encodings)
    assert same.first_differing is None
    assert all(t.exact == 1.0 for t in same.tensors)
    differs = nputwin.compare(network(), "htp_v75", "fake_quant", samples[0], encodings=encodings)
    names = [t.name for t in differs.tensors]
    assert names.index("x") < names.index("y")
    assert all(t.cosine > 0.9 for t in differs.tensors)
    assert "<table>" in differs._repr_html_()


def test_compare_with_captured_tensors() -> None:
    samples = feeds(2)
    encodings = nputwin.calibrate(network(), samples, target="htp_v75")
    session = nputwin.Session(network(), target="htp_v75", encodings=encodings)
    captures = [{name: t.value for name, t in session.dump(s).items()} for s in samples]
    codes = [{n: t.codes for n, t in session.dump(s).items() if t.codes is not None} for s in samples]
    for captured in (captures, codes):
        result = nputwin.compare(network(), "htp_v75", captured, samples, encodings=encodings)
        assert result.first_differing is None
    changed = codes[1]["y"].copy()
    changed[1, 3] = changed[1, 3] - 2 if changed[1, 3] > 2 else changed[1, 3] + 2
    codes[1]["y"] = changed
    result = nputwin.compare(network(), "htp_v75", codes, samples, encodings=encodings)
    first = result.first_differing
    assert (first.name, first.off_by_n, first.differing) == ("y", 2, 1)
    assert (first.first.sample, first.first.index) == (1, 8)
    with pytest.raises(nputwin.InvalidError, match="shape"):
        nputwin.compare(network(), "htp_v75", {"y": changed[:1]}, samples[0], encodings=encodings)
    with pytest.raises(nputwin.InvalidError, match="2 captures for 1 samples"):
        nputwin.compare(network(), "htp_v75", codes, samples[0], encodings=encodings)
