"""`Encoding`, `quantize`, `dequantize`."""

import copy
import pickle

import numpy as np
import pytest

import nputwin
from nputwin import Encoding, dequantize, quantize

TIES = np.float32([-2.5, -1.5, -0.5, 0.5, 1.5, 2.5])


def test_fields() -> None:
    encoding = Encoding(0.5, 128)
    assert (encoding.qmin, encoding.qmax, encoding.min, encoding.max) == (0, 255, -64.0, 63.5)
    assert (encoding.dtype, encoding.granularity, encoding.axis, encoding.block_size) == (
        "uint8",
        "per_tensor",
        None,
        None,
    )
    assert encoding.scale.dtype == np.float64
    assert encoding.zero_point.dtype == np.int64
    channels = Encoding(np.float32([0.5, 0.25]), signed=True, narrow_range=True, symmetric=True, axis=1)
    assert (channels.qmin, channels.granularity, channels.zero_point.tolist()) == (-127, "per_channel", [0, 0])
    assert Encoding([0.5, 0.25], [0, 0], axis=1, block_size=4, bitwidth=4).granularity == "per_block"


def test_equality_copies_and_text() -> None:
    encoding = Encoding([0.5, 0.25], [3, 4], axis=1, signed=True)
    for twin in (pickle.loads(pickle.dumps(encoding)), copy.deepcopy(encoding), eval(repr(encoding))):
        assert twin == encoding
    assert encoding != Encoding([0.5, 0.25], [3, 5], axis=1, signed=True)
    assert encoding != "something else"


@pytest.mark.parametrize(
    ("arguments", "options", "code"),
    [
        ((0.0,), {}, "encoding_scale"),
        ((float("nan"),), {}, "encoding_scale"),
        ((1.0, 256), {}, "encoding_zero_point"),
        ((1.0,), {"bitwidth": 1}, "encoding_bitwidth"),
        ((1.0,), {"bitwidth": 33}, "encoding_bitwidth"),
        (([1.0, 2.0],), {}, "encoding_length"),
        (([1.0, 2.0], [1]), {"axis": 0}, "encoding_length"),
        (([],), {"axis": 0}, "encoding_length"),
        ((1.0,), {"block_size": 4}, "encoding_axis"),
        ((1.0,), {"axis": 0, "block_size": 0}, "encoding_block"),
    ],
)
def test_wrong_encodings(arguments: tuple, options: dict, code: str) -> None:
    with pytest.raises(nputwin.InvalidError) as caught:
        Encoding(*arguments, **options)
    assert caught.value.code == code


@pytest.mark.parametrize(
    ("rounding", "expected"),
    [
        ("half_even", [-2, -2, 0, 0, 2, 2]),
        ("half_away", [-3, -2, -1, 1, 2, 3]),
        ("half_up", [-2, -1, 0, 1, 2, 3]),
        ("half_down", [-3, -2, -1, 0, 1, 2]),
        ("half_to_zero", [-2, -1, 0, 0, 1, 2]),
        ("half_odd", [-3, -1, -1, 1, 1, 3]),
        ("floor", [-3, -2, -1, 0, 1, 2]),
        ("ceil", [-2, -1, 0, 1, 2, 3]),
        ("trunc", [-2, -1, 0, 0, 1, 2]),
    ],
)
def test_every_rounding_mode_on_ties(rounding: str, expected: list[int]) -> None:
    assert quantize(TIES, Encoding(1.0, signed=True), rounding=rounding).tolist() == expected


def test_an_odd_zero_point_added_before_rounding_moves_ties() -> None:
    encoding = Encoding(1.0, 3, signed=True)
    assert quantize(TIES, encoding).tolist() == [1, 1, 3, 3, 5, 5]
    assert quantize(TIES, encoding, zero_point="before_rounding").tolist() == [0, 2, 2, 4, 4, 6]


@pytest.mark.parametrize("bitwidth", [2, 4, 8, 16])
@pytest.mark.parametrize("signed", [True, False])
def test_every_code_survives(bitwidth: int, signed: bool) -> None:
    encoding = Encoding(0.0123, 1, bitwidth=bitwidth, signed=signed)
    codes = np.arange(encoding.qmin, encoding.qmax + 1)
    reals = dequantize(codes, encoding)
    np.testing.assert_array_equal(reals, np.float32(0.0123) * (codes - 1).astype(np.float32))
    back = quantize(reals, encoding)
    assert back.dtype == encoding.dtype
    np.testing.assert_array_equal(back, codes)


def test_division_equals_numpy_and_reciprocal_does_not() -> None:
    scale = np.float32(0.3)
    x = (np.arange(-120, 120, dtype=np.float32) + np.float32(0.5)) * scale
    encoding = Encoding(float(scale), signed=True)
    divided = np.round(x / scale).astype(np.int8)
    np.testing.assert_array_equal(quantize(x, encoding), divided)
    multiplied = np.round(x * (np.float32(1) / scale)).astype(np.int8)
    np.testing.assert_array_equal(quantize(x, encoding, scaling="reciprocal_f32"), multiplied)
    assert (divided != multiplied).any()


def test_channels_blocks_and_strides(rng: np.random.Generator) -> None:
    x = rng.standard_normal((4, 6)).astype(np.float32)
    channels = Encoding([0.1, 0.2, 0.3, 0.4], signed=True, axis=0)
    expected = np.round(x / np.float32([[0.1], [0.2], [0.3], [0.4]])).astype(np.int8)
    np.testing.assert_array_equal(quantize(x, channels), expected)
    np.testing.assert_array_equal(quantize(np.asfortranarray(x), channels), expected)
    np.testing.assert_array_equal(quantize(np.repeat(x, 2, axis=1)[:, ::2], channels), expected)
    blocks = Encoding(np.linspace(0.1, 0.8, 8), signed=True, axis=1, block_size=3)
    scale = np.repeat(np.linspace(0.1, 0.8, 8).reshape(4, 2), 3, axis=1).astype(np.float32)
    np.testing.assert_array_equal(quantize(x, blocks), np.round(x / scale).astype(np.int8))


def test_wrong_arrays() -> None:
    encoding = Encoding(0.5, 128)
    with pytest.raises(nputwin.InvalidError, match="element 1 of the tensor is NaN"):
        quantize(np.float32([0, np.nan]), encoding)
    with pytest.raises(nputwin.InvalidError, match="expected float32, found float64"):
        quantize(np.zeros(2), encoding)
    with pytest.raises(nputwin.InvalidError, match=r"code 256 is outside 0\.\.=255"):
        dequantize(np.array([0, 256]), encoding)
    with pytest.raises(nputwin.InvalidError, match="expected integers"):
        dequantize(np.zeros(1), encoding)
    with pytest.raises(nputwin.InvalidError, match="cannot be a tensor"):
        dequantize(np.array(["a"]), encoding)
    with pytest.raises(nputwin.InvalidError, match="cannot be a tensor"):
        quantize(np.zeros(2, ">f4"), encoding)
    with pytest.raises(nputwin.InvalidError, match="rounding 'half_evn' is not known"):
        quantize(TIES, encoding, rounding="half_evn")
    with pytest.raises(nputwin.InvalidError) as caught:
        quantize(np.zeros((2, 2), np.float32), Encoding([1.0] * 3, axis=0))
    assert caught.value.code == "encoding_shape"


def test_ranges_by_formula() -> None:
    encoding = Encoding.from_min_max(-4.464321613311768, 4.095092296600342)
    assert (encoding.scale[0], encoding.zero_point[0]) == (0.03356632962822914, 133)
    channels = Encoding.from_min_max(np.float32([-1, -2]), [1, 0], signed=True, symmetric=True, axis=0)
    assert channels.granularity == "per_channel"
    with pytest.raises(nputwin.InvalidError, match="not finite"):
        Encoding.from_min_max(float("nan"), 1.0)
    with pytest.raises(nputwin.InvalidError, match="1 minima and 2 maxima"):
        Encoding.from_min_max([0.0], [1.0, 2.0], axis=0)
    with pytest.raises(nputwin.InvalidError, match="known: aimet_torch"):
        Encoding.from_min_max(-1, 1, formula="aimet")
