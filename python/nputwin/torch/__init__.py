"""Quantization for training: torch functions whose forward equals the emulator's integers.

Example:
    >>> from nputwin.torch import FakeQuantize
    >>> quantizer = FakeQuantize(bitwidth=8)
    >>> y = quantizer(x)               # observes the range of x, then quantizes and dequantizes it
    >>> quantizer.observing = False    # freezes the range
"""

from nputwin.torch._function import fake_quantize
from nputwin.torch._module import FakeQuantize

__all__ = ["FakeQuantize", "fake_quantize"]
