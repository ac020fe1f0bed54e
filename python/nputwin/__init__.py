"""A digital twin of an NPU's integer arithmetic.

Example:
    >>> import nputwin
    >>> session = nputwin.Session("model.onnx", target="htp_v75", encodings="model.encodings")
    >>> (y,) = session.run(None, {"x": x})

The package needs numpy only; `nputwin.torch` also needs torch.
"""

from nputwin._calibration import calibrate
from nputwin._comparison import Comparison, FirstDifference, TensorDifference, compare
from nputwin._conformance import (
    Conformance,
    ConformanceCase,
    ConformanceFault,
    ConformanceRow,
    VectorCase,
    conformance,
)
from nputwin._native import Encoding, __version__, dequantize, quantize
from nputwin._placement import check, placement
from nputwin._results import Dumped, Explanation, Node, Note, Port, Report, Target
from nputwin._session import Session, targets
from nputwin.errors import (
    FileError,
    InvalidError,
    NputwinError,
    TargetUnsupportedError,
    UnspecifiedError,
    UnsupportedError,
)

__all__ = [
    "Comparison",
    "Conformance",
    "ConformanceCase",
    "ConformanceFault",
    "ConformanceRow",
    "Dumped",
    "Encoding",
    "Explanation",
    "FileError",
    "FirstDifference",
    "InvalidError",
    "Node",
    "Note",
    "NputwinError",
    "Port",
    "Report",
    "Session",
    "Target",
    "TargetUnsupportedError",
    "TensorDifference",
    "UnspecifiedError",
    "UnsupportedError",
    "VectorCase",
    "__version__",
    "calibrate",
    "check",
    "compare",
    "conformance",
    "dequantize",
    "placement",
    "quantize",
    "targets",
]
