"""`fake_quantize`: a torch operator over the core's kernel, with a straight-through gradient."""

from __future__ import annotations

import torch
from torch import Tensor

from nputwin import _native
from nputwin._native import Encoding
from nputwin.errors import invalid


@torch.library.custom_op("nputwin::fake_quantize", mutates_args=())
def fake_quantize_op(
    x: Tensor,
    scale: Tensor,
    zero_point: Tensor,
    bitwidth: int,
    signed: bool,
    narrow_range: bool,
    axis: int | None,
    block_size: int | None,
) -> tuple[Tensor, Tensor]:
    """Reals on the grid, and where the rounded code lay in it before saturation; both laid out like `x`."""
    if x.device.type != "cpu":
        encoding = (bitwidth, signed, narrow_range, axis, block_size)
        return simulate(x, scale, zero_point, *encoding)
    grid = Encoding(
        scale.tolist(),
        zero_point.tolist(),
        bitwidth=bitwidth,
        signed=signed,
        narrow_range=narrow_range,
        axis=axis,
        block_size=block_size,
    )
    # numpy sees the tensor's own memory; only strides that are not row-major cost a copy.
    values, inside = (torch.from_numpy(array) for array in _native.fake_quantize(x.detach().numpy(), grid))
    if x.is_contiguous():
        return values, inside
    return torch.empty_like(x).copy_(values), torch.empty_like(x, dtype=torch.bool).copy_(inside)


def simulate(
    x: Tensor,
    scale: Tensor,
    zero_point: Tensor,
    bitwidth: int,
    signed: bool,
    narrow_range: bool,
    axis: int | None,
    block_size: int | None,
) -> tuple[Tensor, Tensor]:
    """The kernel in torch operations, one rounding each, for devices that the core does not reach; the same bits."""
    lowest = (-(1 << (bitwidth - 1)) if signed else 0) + int(narrow_range)
    highest = (1 << (bitwidth - int(signed))) - 1
    # Sums of steps and zero point are exact in float32 for all codes of such grids.
    wide = torch.float32 if bitwidth <= 16 else torch.float64

    def spread(parameter: Tensor) -> Tensor:
        if axis is None:
            return parameter.reshape(())
        if block_size is None:
            return parameter.reshape([-1 if dim == axis else 1 for dim in range(x.dim())])
        blocks = [size // block_size if dim == axis else size for dim, size in enumerate(x.shape)]
        return parameter.reshape(blocks).repeat_interleave(block_size, dim=axis)

    step = spread(scale).to(torch.float32)
    zero = spread(zero_point).to(wide)
    codes = torch.round(x * torch.reciprocal(step)).to(wide) + zero
    inside = torch.empty_like(x, dtype=torch.bool)
    torch.logical_and(codes >= lowest, codes <= highest, out=inside)
    values = torch.empty_like(x)
    torch.mul((codes.clamp(lowest, highest) - zero).to(torch.float32), step, out=values)
    return values, inside


@fake_quantize_op.register_fake
def _(
    x: Tensor,
    scale: Tensor,
    zero_point: Tensor,
    bitwidth: int,
    signed: bool,
    narrow_range: bool,
    axis: int | None,
    block_size: int | None,
) -> tuple[Tensor, Tensor]:
    return torch.empty_like(x), torch.empty_like(x, dtype=torch.bool)


def _save_mask(ctx: torch.autograd.function.FunctionCtx, inputs: object, output: tuple[Tensor, Tensor]) -> None:
    ctx.save_for_backward(output[1])


def _straight_through(
    ctx: torch.autograd.function.BackwardCFunction, gradient: Tensor, _: object
) -> tuple[object, ...]:
    (inside,) = ctx.saved_tensors
    return gradient * inside, None, None, None, None, None, None, None


fake_quantize_op.register_autograd(_straight_through, setup_context=_save_mask)


def checked(x: Tensor) -> Tensor:
    """`x` in float32: half types hold a subset of it, so nothing is lost; other types are refused."""
    if x.dtype in (torch.float16, torch.bfloat16):
        return x.to(torch.float32)
    if x.dtype != torch.float32:
        raise invalid("tensor_dtype", f"expected float32, found {x.dtype}", "convert the tensor with .float()")
    return x


def fake_quantize(x: Tensor, encoding: Encoding) -> Tensor:
    """Quantize and dequantize, with a straight-through gradient.

    Forward: `scale * (saturate(half_even(x * (1 / scale)) + zero_point) - zero_point)` in float32, one rounding per
    operation; the `fake_quant` target's arithmetic, equal in every bit on every device. NaN stays NaN.

    Backward: the gradient passes where the rounded code lies in the grid, and is zero elsewhere.

    Args:
        x: float32, any shape and strides. float16 and bfloat16 are converted to float32, which is exact.
        encoding: The grid: per tensor, per channel or per block.

    Returns:
        A float32 tensor of the same shape.

    Raises:
        InvalidError: `x` has another type, or scales do not fit its shape.

    Example:
        >>> fake_quantize(torch.tensor([0.3, 9.0]), Encoding(0.5, 0, bitwidth=4, signed=True))
        tensor([0.5000, 3.5000])
    """
    x = checked(x)
    scale = torch.from_numpy(encoding.scale).to(x.device)
    zero_point = torch.from_numpy(encoding.zero_point).to(x.device)
    values: Tensor
    values, _ = fake_quantize_op(
        x,
        scale,
        zero_point,
        encoding.bitwidth,
        encoding.signed,
        encoding.narrow_range,
        encoding.axis,
        encoding.block_size,
    )
    return values
