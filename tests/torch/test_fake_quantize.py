"""`nputwin.torch`: the same bits as the core on every tie, gradients, the module."""

import copy
import io

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import nputwin  # noqa: E402
from nputwin import Encoding  # noqa: E402
from nputwin.torch import FakeQuantize, fake_quantize  # noqa: E402
from nputwin.torch._function import fake_quantize_op, simulate  # noqa: E402

SCALES = [1.0, 0.5, 0.1, 0.3, 1 / 255, 2 / 255, 0.0078431377, 3.7e-5, 812.3, 1.1754944e-30]
GRIDS = [
    (2, True, 0),
    (4, True, 0),
    (4, False, 7),
    (8, True, 0),
    (8, True, -3),
    (8, False, 128),
    (8, False, 0),
    (8, False, 255),
]


def ties(encoding: Encoding) -> np.ndarray:
    """Every tie of the grid and two beyond each end, with one ulp to both sides, and the extremes of float32."""
    zero = int(encoding.zero_point[0])
    steps = np.arange(encoding.qmin - zero - 2, encoding.qmax - zero + 3, dtype=np.float32) + np.float32(0.5)
    tie = steps * np.float32(encoding.scale[0])
    infinity = np.float32(np.inf)
    extremes = np.float32([0.0, -0.0, np.inf, -np.inf, np.finfo(np.float32).max, np.finfo(np.float32).tiny])
    return np.concatenate([tie, np.nextafter(tie, infinity), np.nextafter(tie, -infinity), extremes])


def assert_same_bits(got: np.ndarray, expected: np.ndarray) -> None:
    np.testing.assert_array_equal(got.view(np.int32), expected.view(np.int32))


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("grid", [*GRIDS, (16, False, 32768), (16, True, 0)])
def test_equals_the_core_on_every_tie(scale: float, grid: tuple) -> None:
    bitwidth, signed, zero_point = grid
    encoding = Encoding(scale, zero_point, bitwidth=bitwidth, signed=signed)
    x = ties(encoding)
    codes = nputwin.quantize(x, encoding, scaling="reciprocal_f32")
    expected = nputwin.dequantize(codes, encoding)
    assert_same_bits(fake_quantize(torch.from_numpy(x), encoding).numpy(), expected)
    parameters = torch.from_numpy(encoding.scale), torch.from_numpy(encoding.zero_point)
    values, inside = simulate(torch.from_numpy(x), *parameters, bitwidth, signed, False, None, None)
    assert_same_bits(values.numpy(), expected)
    _, mask = fake_quantize_op(torch.from_numpy(x), *parameters, bitwidth, signed, False, None, None)
    np.testing.assert_array_equal(inside.numpy(), mask.numpy())


@pytest.mark.parametrize("scale", SCALES[:-1])
@pytest.mark.parametrize("grid", GRIDS)
def test_equals_torch_on_every_tie(scale: float, grid: tuple) -> None:
    bitwidth, signed, zero_point = grid
    encoding = Encoding(float(np.float32(scale)), zero_point, bitwidth=bitwidth, signed=signed)
    # torch converts steps to int64 first: beyond its range the two differ.
    x = ties(encoding)
    x = torch.from_numpy(x[np.abs(x.astype(np.float64)) < 2.0**60 * scale]).requires_grad_()
    twin = x.detach().clone().requires_grad_()
    ours = fake_quantize(x, encoding)
    scale_f32 = float(np.float32(scale))
    theirs = torch.fake_quantize_per_tensor_affine(twin, scale_f32, zero_point, encoding.qmin, encoding.qmax)
    assert torch.equal(ours, theirs)
    ours.sum().backward()
    theirs.sum().backward()
    assert torch.equal(x.grad, twin.grad)
    assert 0 < x.grad.mean() < 1


def test_division_would_fail_these_tests() -> None:
    encoding = Encoding(0.3, signed=True)
    x = ties(encoding)
    divided = nputwin.dequantize(nputwin.quantize(x, encoding), encoding)
    assert (divided != fake_quantize(torch.from_numpy(x), encoding).numpy()).any()


@pytest.mark.parametrize("axis", [0, 1, 3])
def test_channels_equal_torch(axis: int) -> None:
    x = torch.randn(4, 3, 5, 6)
    count = x.shape[axis]
    scale = torch.linspace(0.01, 0.07, count)
    zero_point = torch.arange(count) - 1
    encoding = Encoding(scale.double().numpy(), zero_point.numpy(), signed=True, axis=axis)
    expected = torch.fake_quantize_per_channel_affine(x, scale, zero_point.float(), axis, -128, 127)
    assert torch.equal(fake_quantize(x, encoding), expected)
    values, _ = simulate(x, scale.double(), zero_point, 8, True, False, axis, None)
    assert torch.equal(values, expected)


def test_blocks_equal_the_core() -> None:
    x = torch.randn(4, 6)
    encoding = Encoding(np.linspace(0.1, 0.8, 8), signed=True, bitwidth=4, axis=1, block_size=3)
    codes = nputwin.quantize(x.numpy(), encoding, scaling="reciprocal_f32")
    expected = nputwin.dequantize(codes, encoding)
    assert_same_bits(fake_quantize(x, encoding).numpy(), expected)
    scale, zero_point = torch.from_numpy(encoding.scale), torch.from_numpy(encoding.zero_point)
    assert_same_bits(simulate(x, scale, zero_point, 4, True, False, 1, 3)[0].numpy(), expected)


@pytest.mark.parametrize("bitwidth", [24, 32])
def test_wide_grids(bitwidth: int) -> None:
    encoding = Encoding(1e-6, 5, bitwidth=bitwidth, signed=True)
    x = torch.randn(1000) * 20
    expected = nputwin.dequantize(nputwin.quantize(x.numpy(), encoding, scaling="reciprocal_f32"), encoding)
    assert_same_bits(fake_quantize(x, encoding).numpy(), expected)
    parameters = torch.from_numpy(encoding.scale), torch.from_numpy(encoding.zero_point)
    assert_same_bits(simulate(x, *parameters, bitwidth, True, False, None, None)[0].numpy(), expected)


def test_the_gradient_is_that_of_clipping() -> None:
    encoding = Encoding(0.5, 0, bitwidth=4, signed=True)
    x = torch.tensor([-4.3, -4.25, -4.2, -1.0, 0.0, 3.7, 3.74, 3.75, 3.8, float("nan")], requires_grad=True)
    weight = torch.arange(1.0, 11.0)
    (fake_quantize(x, encoding) * weight).sum().backward()
    inside = torch.tensor([0, 1, 1, 1, 1, 1, 1, 0, 0, 0], dtype=torch.bool)
    assert torch.equal(x.grad, weight * inside)


def test_strides_types_and_nan() -> None:
    encoding = Encoding(0.25, 3, signed=True)
    x = torch.randn(2, 3, 4, 5)
    expected = fake_quantize(x, encoding)
    assert torch.equal(fake_quantize(x.to(memory_format=torch.channels_last), encoding), expected)
    assert torch.equal(fake_quantize(x.permute(3, 1, 0, 2), encoding), expected.permute(3, 1, 0, 2))
    assert torch.equal(fake_quantize(x[:, :, ::2], encoding), expected[:, :, ::2])
    for dtype in (torch.float16, torch.bfloat16):
        half = x.to(dtype)
        result = fake_quantize(half, encoding)
        assert result.dtype == torch.float32
        assert torch.equal(result, fake_quantize(half.float(), encoding))
    with pytest.raises(nputwin.InvalidError, match="expected float32"):
        fake_quantize(x.double(), encoding)
    with pytest.raises(nputwin.InvalidError, match="scales"):
        fake_quantize(x, Encoding([1.0, 2.0], axis=1))
    assert torch.isnan(fake_quantize(torch.tensor([float("nan")]), encoding)).all()
    assert fake_quantize(torch.empty(0, 3), encoding).shape == (0, 3)


# The check itself looks at gradients of tensors that are not leaves.
@pytest.mark.filterwarnings("ignore:The .grad attribute")
def test_the_operator_keeps_the_rules_of_torch_library() -> None:
    scale, zero_point = torch.tensor([0.1, 0.2, 0.3], dtype=torch.float64), torch.tensor([0, 1, 2])
    contiguous = torch.randn(3, 4, requires_grad=True)
    strided = torch.randn(4, 3).t().requires_grad_()
    for x in (contiguous, strided):
        torch.library.opcheck(fake_quantize_op, (x, scale, zero_point, 8, False, False, 0, None))


def test_compiled_module_gives_the_same_bits() -> None:
    module = FakeQuantize(4)
    x = torch.randn(5, 7)
    module(x)
    module.observing = False
    compiled = torch.compile(module, backend="aot_eager", fullgraph=True)
    x.requires_grad_()
    y = compiled(x)
    assert torch.equal(y, module(x))
    y.sum().backward()
    assert x.grad is not None


def test_observer_follows_the_range() -> None:
    module = FakeQuantize(8)
    module.observing = False
    with pytest.raises(nputwin.InvalidError, match="no range"):
        module(torch.zeros(3))
    module.observing = True
    module(torch.tensor([-1.0, 2.0]))
    module(torch.tensor([0.5, 3.0]))
    assert module.encoding == Encoding.from_min_max(-1.0, 3.0)
    module.observing = False
    before = module.encoding
    assert module(torch.tensor([9.0])).item() == pytest.approx(before.max)
    assert module.encoding == before
    module.quantizing = False
    assert module(torch.tensor([9.0])).item() == 9.0
    module.reset()
    assert module.encoding is None


def test_observer_refuses_what_has_no_range() -> None:
    module = FakeQuantize(8, axis=1)
    module(torch.randn(2, 3, 4))
    before = module.encoding
    for x in (
        torch.full((2, 3, 4), float("nan")),
        torch.full((2, 3, 4), float("inf")),
        torch.randn(2, 4, 4),
        torch.randn(2),
    ):
        with pytest.raises(nputwin.InvalidError):
            module(x)
        assert module.encoding == before
    with pytest.raises(nputwin.InvalidError):
        FakeQuantize(8, narrow_range=True)


def test_observer_per_channel() -> None:
    module = FakeQuantize(8, signed=True, symmetric=True, axis=0)
    weight = torch.randn(4, 3, 2, 2)
    y = module(weight)
    low, high = weight.flatten(1).min(1).values, weight.flatten(1).max(1).values
    expected = Encoding.from_min_max(low.numpy(), high.numpy(), signed=True, symmetric=True, axis=0)
    assert module.encoding == expected
    assert torch.equal(y, fake_quantize(weight, expected))


def test_state_survives_saving() -> None:
    module = FakeQuantize(4, signed=True, symmetric=True, axis=0)
    x = torch.randn(3, 8)
    expected = module(x)
    module.observing = False
    file = io.BytesIO()
    torch.save({"m": module.state_dict()}, file)
    file.seek(0)
    twin = FakeQuantize()
    twin.load_state_dict(torch.load(file, weights_only=True)["m"])
    assert torch.equal(twin(x), expected)
    assert (twin.observing, twin.encoding) == (False, module.encoding)
    assert torch.equal(copy.deepcopy(module)(x), expected)
    empty = FakeQuantize()
    empty.load_state_dict(FakeQuantize(6).state_dict())
    assert (empty.bitwidth, empty.encoding) == (6, None)


def test_casting_a_model_leaves_the_grid_alone() -> None:
    module = FakeQuantize(8)
    module(torch.randn(100))
    before = module.encoding
    assert module.half().encoding == before
    assert module.to(torch.bfloat16).min_val.dtype == torch.float32


def test_training_moves_weights_through_the_quantizer() -> None:
    torch.manual_seed(0)
    layer, quantizer = torch.nn.Linear(4, 1), FakeQuantize(4, signed=True, symmetric=True)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.05)
    x = torch.randn(64, 4)
    target = x @ torch.tensor([[1.0], [-2.0], [0.5], [0.25]])
    losses = []
    for _ in range(100):
        optimizer.zero_grad()
        loss = torch.nn.functional.mse_loss(torch.nn.functional.linear(x, quantizer(layer.weight), layer.bias), target)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.1 * losses[0]
