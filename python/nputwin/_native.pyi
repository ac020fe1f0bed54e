from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, final

import numpy as np
import numpy.typing as npt

__all__ = [
    "Comparison",
    "Encoding",
    "Session",
    "__version__",
    "calibrate",
    "check",
    "conformance",
    "dequantize",
    "fake_quantize",
    "placement",
    "quantize",
    "run_cli",
    "targets",
]

__version__: str

@final
class Encoding:
    def __new__(
        cls,
        scale: float | Sequence[float] | npt.NDArray[np.floating[Any]],
        zero_point: int | Sequence[int] | npt.NDArray[np.integer[Any]] | None = None,
        *,
        bitwidth: int = 8,
        signed: bool = False,
        symmetric: bool = False,
        narrow_range: bool = False,
        axis: int | None = None,
        block_size: int | None = None,
    ) -> Encoding: ...
    @staticmethod
    def from_min_max(
        min: float | Sequence[float] | npt.NDArray[np.floating[Any]],
        max: float | Sequence[float] | npt.NDArray[np.floating[Any]],
        *,
        bitwidth: int = 8,
        signed: bool = False,
        symmetric: bool = False,
        narrow_range: bool = False,
        unsigned_symmetric: bool = False,
        axis: int | None = None,
        formula: str = "aimet_torch",
    ) -> Encoding: ...
    @property
    def scale(self) -> npt.NDArray[np.float64]: ...
    @property
    def zero_point(self) -> npt.NDArray[np.int64]: ...
    @property
    def bitwidth(self) -> int: ...
    @property
    def signed(self) -> bool: ...
    @property
    def symmetric(self) -> bool: ...
    @property
    def narrow_range(self) -> bool: ...
    @property
    def axis(self) -> int | None: ...
    @property
    def block_size(self) -> int | None: ...
    @property
    def granularity(self) -> Literal["per_tensor", "per_channel", "per_block"]: ...
    @property
    def qmin(self) -> int: ...
    @property
    def qmax(self) -> int: ...
    @property
    def min(self) -> float: ...
    @property
    def max(self) -> float: ...
    @property
    def dtype(self) -> str: ...
    def __eq__(self, other: object, /) -> bool: ...
    def __getnewargs_ex__(self) -> tuple[tuple[list[float], list[int]], dict[str, Any]]: ...

@final
class Session:
    def __new__(
        cls,
        model: str | bytes,
        target: str,
        *,
        encodings: str | bytes | None = None,
        threads: int = 0,
        max_memory: int | None = None,
        strict: bool = False,
        assume: Sequence[tuple[str, str]] | None = None,
        allow_unmatched: bool = False,
    ) -> Session: ...
    @property
    def target(self) -> tuple[str, str]: ...
    @property
    def threads(self) -> int: ...
    def inputs(self) -> list[dict[str, Any]]: ...
    def outputs(self) -> list[dict[str, Any]]: ...
    def run(self, values: dict[str, npt.NDArray[Any]]) -> list[tuple[str, npt.NDArray[Any]]]: ...
    def run_quantized(self, values: dict[str, npt.NDArray[Any]]) -> list[tuple[str, npt.NDArray[Any]]]: ...
    def dump(self, values: dict[str, npt.NDArray[Any]]) -> list[dict[str, Any]]: ...
    def explain(self, values: dict[str, npt.NDArray[Any]], tensor: str, index: int) -> str: ...
    def report(self, shapes: Sequence[Sequence[int]] | None = None) -> dict[str, Any]: ...

@final
class Comparison:
    def __new__(cls) -> Comparison: ...
    def add(self, values: dict[str, npt.NDArray[Any]], session: Session, reference: Session) -> None: ...
    def add_captured(
        self, values: dict[str, npt.NDArray[Any]], session: Session, captured: dict[str, npt.NDArray[Any]]
    ) -> None: ...
    def finish(self) -> str: ...

def quantize(
    x: npt.NDArray[np.float32],
    encoding: Encoding,
    *,
    rounding: str = "half_even",
    scaling: str = "divide_f32",
    zero_point: str = "after_rounding",
) -> npt.NDArray[Any]: ...
def dequantize(codes: npt.NDArray[Any], encoding: Encoding) -> npt.NDArray[np.float32]: ...
def fake_quantize(
    x: npt.NDArray[np.float32], encoding: Encoding
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]: ...
def calibrate(
    model: str | bytes,
    samples: Iterator[dict[str, npt.NDArray[Any]]],
    target: str,
    *,
    percentile: float | None,
    formula: str,
    activation_bits: int | None,
    weight_bits: int | None,
    per_channel: bool | None,
    threads: int,
    max_memory: int | None,
    version: str,
) -> str: ...
def placement(model: str | bytes, target: str) -> list[dict[str, Any]]: ...
def check(
    model: str | bytes, target: str, encodings: str | bytes | None, allow_unmatched: bool
) -> list[dict[str, str]]: ...
def conformance(
    folders: Sequence[str],
    *,
    target: str | None,
    families: Sequence[str],
    only: str | None,
    runtimes: Sequence[str],
    against_target: bool,
    jobs: int,
    through_python: Callable[[Session, dict[str, npt.NDArray[Any]]], npt.NDArray[Any]],
    implementation: Callable[[str, dict[str, npt.NDArray[Any]]], npt.NDArray[Any]] | None,
) -> str: ...
def targets() -> list[dict[str, Any]]: ...
def run_cli(arguments: Sequence[str]) -> int: ...
