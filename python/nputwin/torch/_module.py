"""`FakeQuantize`: a module that observes a range and quantizes to it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Self

import torch
from torch import Tensor, nn

from nputwin._native import Encoding
from nputwin.errors import invalid
from nputwin.torch._function import checked, fake_quantize_op

_CONFIGURATION = ("bitwidth", "signed", "symmetric", "narrow_range", "axis", "block_size", "formula")
_BUFFERS = ("min_val", "max_val", "scale", "zero_point")


class FakeQuantize(nn.Module):
    """Observes the range of what passes and quantizes it to the grid of that range.

    The range is the smallest and largest value seen since `reset()`, per tensor or per channel; the grid follows by the
    `formula` of `Encoding.from_min_max`. While `observing`, the grid follows the range in every call; afterwards it is
    frozen. State dictionaries hold range, grid, configuration and both switches.

    Args:
        bitwidth: 2 to 32.
        signed: Signed codes.
        symmetric: Zero in the middle of the grid.
        narrow_range: Leave the lowest code out; needs `symmetric`.
        axis: Axis of the channels; None for one range per tensor.
        formula: How a range becomes a grid.

    Attributes:
        observing: Whether calls widen the range.
        quantizing: Whether calls quantize; where not, they return their argument.

    Raises:
        InvalidError: The formula has no such grid.
    """

    min_val: Tensor
    max_val: Tensor
    scale: Tensor
    zero_point: Tensor

    def __init__(
        self,
        bitwidth: int = 8,
        *,
        signed: bool = False,
        symmetric: bool = False,
        narrow_range: bool = False,
        axis: int | None = None,
        formula: str = "aimet_torch",
    ) -> None:
        super().__init__()
        self.bitwidth = bitwidth
        self.signed = signed
        self.symmetric = symmetric
        self.narrow_range = narrow_range
        self.axis = axis
        self.block_size: int | None = None
        self.formula = formula
        self.observing = True
        self.quantizing = True
        self._grid([-1.0], [1.0], None)  # refuses options that the formula does not have
        self.reset()

    @classmethod
    def from_encoding(cls, encoding: Encoding) -> Self:
        """A module that quantizes to a fixed grid."""
        module = cls()
        module.set_encoding(encoding)
        return module

    def _grid(self, low: list[float], high: list[float], axis: int | None) -> Encoding:
        return Encoding.from_min_max(
            low,
            high,
            bitwidth=self.bitwidth,
            signed=self.signed,
            symmetric=self.symmetric,
            narrow_range=self.narrow_range,
            axis=axis,
            formula=self.formula,
        )

    def reset(self) -> None:
        """Forgets range and grid."""
        device = self.scale.device if hasattr(self, "scale") else None
        self.register_buffer("min_val", torch.empty(0, device=device))
        self.register_buffer("max_val", torch.empty(0, device=device))
        self.register_buffer("scale", torch.empty(0, dtype=torch.float64, device=device))
        self.register_buffer("zero_point", torch.empty(0, dtype=torch.int64, device=device))

    @property
    def encoding(self) -> Encoding | None:
        """The grid; None before the first range."""
        if self.scale.numel() == 0:
            return None
        return Encoding(
            self.scale.tolist(),
            self.zero_point.tolist(),
            bitwidth=self.bitwidth,
            signed=self.signed,
            symmetric=self.symmetric,
            narrow_range=self.narrow_range,
            axis=self.axis,
            block_size=self.block_size,
        )

    def set_encoding(self, encoding: Encoding) -> None:
        """Takes a grid over and stops observing."""
        self.bitwidth = encoding.bitwidth
        self.signed = encoding.signed
        self.symmetric = encoding.symmetric
        self.narrow_range = encoding.narrow_range
        self.axis = encoding.axis
        self.block_size = encoding.block_size
        self.observing = False
        self._set_grid(encoding)

    def _set_grid(self, encoding: Encoding) -> None:
        device = self.scale.device
        self.scale = torch.from_numpy(encoding.scale).to(device)
        self.zero_point = torch.from_numpy(encoding.zero_point).to(device)

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    @torch.no_grad()
    def observe(self, x: Tensor) -> None:
        """Widens the range to the values of `x` and moves the grid.

        Raises:
            InvalidError: A value is not finite; range and grid then stay as they were.
        """
        if x.numel() == 0:
            return
        if self.block_size is not None:
            raise invalid("observer_block", "ranges of blocks are not observed", "set observing to False")
        x = x.detach().to(torch.float32)
        if self.axis is None:
            channels = x.reshape(1, -1)
        elif self.axis < x.dim():
            channels = x.movedim(self.axis, 0).flatten(1) if x.dim() > 1 else x.reshape(-1, 1)
        else:
            raise invalid("encoding_axis", f"axis {self.axis} does not exist in a tensor of shape {tuple(x.shape)}")
        low, high = torch.aminmax(channels, dim=1)
        if self.min_val.numel() != 0:
            if self.min_val.shape != low.shape:
                raise invalid("observer_channels", f"{low.numel()} channels after {self.min_val.numel()}")
            low, high = torch.minimum(low, self.min_val), torch.maximum(high, self.max_val)
        encoding = self._grid(low.tolist(), high.tolist(), self.axis)
        self.min_val, self.max_val = low, high
        self._set_grid(encoding)

    def forward(self, x: Tensor) -> Tensor:
        """`x` on the grid, as `fake_quantize`.

        Raises:
            InvalidError: There is no grid yet, or it does not fit `x`.
        """
        if self.observing:
            self.observe(x)
        if not self.quantizing:
            return x
        if self.scale.numel() == 0:
            if x.numel() == 0:
                return x
            raise invalid("observer_empty", "no range was observed", "run calibration data through the module first")
        values: Tensor
        values, _ = fake_quantize_op(
            checked(x),
            self.scale,
            self.zero_point,
            self.bitwidth,
            self.signed,
            self.narrow_range,
            self.axis,
            self.block_size,
        )
        return values

    def get_extra_state(self) -> dict[str, Any]:
        """Configuration and switches, for state dictionaries."""
        return {name: getattr(self, name) for name in (*_CONFIGURATION, "observing", "quantizing")}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Takes over what `get_extra_state` gave."""
        for name in (*_CONFIGURATION, "observing", "quantizing"):
            setattr(self, name, state[name])

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *arguments: Any) -> None:
        # Range and grid have as many elements as there are channels, none before the first range.
        for name in _BUFFERS:
            stored = state_dict.get(prefix + name)
            if stored is not None:
                buffer = getattr(self, name)
                setattr(self, name, torch.empty(stored.shape, dtype=buffer.dtype, device=buffer.device))
        super()._load_from_state_dict(state_dict, prefix, *arguments)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        # `.half()` and `.to(dtype)` are for weights: range and grid follow the device only.
        kept = {name: getattr(self, name) for name in _BUFFERS}
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        for name, buffer in kept.items():
            setattr(self, name, buffer.to(getattr(self, name).device))
        return self

    def extra_repr(self) -> str:
        """Configuration in one line."""
        options = [f"{self.bitwidth}", f"signed={self.signed}", f"symmetric={self.symmetric}"]
        options += [f"axis={self.axis}"] if self.axis is not None else []
        return ", ".join([*options, f"observing={self.observing}", f"quantizing={self.quantizing}"])
