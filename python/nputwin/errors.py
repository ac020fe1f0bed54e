"""Exceptions: one class per kind of failure that a user must tell apart.

All of them carry a stable `code`, the `message` without place and help, where it happened (`location`) and what to do
(`help`).
"""

from __future__ import annotations

__all__ = [
    "FileError",
    "InvalidError",
    "NputwinError",
    "TargetUnsupportedError",
    "UnspecifiedError",
    "UnsupportedError",
]


class NputwinError(Exception):
    """What went wrong, where, and what to do about it.

    Attributes:
        kind: "invalid", "unsupported by the target", "unsupported by nputwin", "unspecified" or "input/output".
        code: Stable slug such as `encoding_scale`.
        message: The sentence without place and help.
        location: Node, tensor and element, or file and line; None where there is no such place.
        help: What to do; None where there is no advice.
    """

    def __init__(
        self,
        kind: str,
        code: str,
        message: str,
        location: str | None = None,
        help: str | None = None,  # noqa: A002
        text: str | None = None,
    ) -> None:
        super().__init__(kind, code, message, location, help, text)
        self.kind = kind
        self.code = code
        self.message = message
        self.location = location
        self.help = help
        self._text = text or f"{kind} [{code}]: {message}"

    def __str__(self) -> str:
        return self._text


class InvalidError(NputwinError, ValueError):
    """The file, tensor or argument is wrong."""


class TargetUnsupportedError(NputwinError):
    """The target cannot do it, and its spec says so."""


class UnsupportedError(NputwinError, NotImplementedError):
    """nputwin cannot do it yet."""


class UnspecifiedError(NputwinError):
    """No public source says what the target does here; an assumption (`assume=`) lets a run go on."""


class FileError(NputwinError, OSError):
    """The operating system refused to read or write."""


_KINDS: dict[str, type[NputwinError]] = {
    "invalid": InvalidError,
    "unsupported by the target": TargetUnsupportedError,
    "unsupported by nputwin": UnsupportedError,
    "unspecified": UnspecifiedError,
    "input/output": FileError,
}


def from_core(
    kind: str,
    code: str,
    message: str,
    location: str | None,
    help: str | None,  # noqa: A002
    text: str,
) -> NputwinError:
    """The exception of an error of the compiled core."""
    return _KINDS.get(kind, NputwinError)(kind, code, message, location, help, text)


def invalid(code: str, message: str, help: str | None = None) -> InvalidError:  # noqa: A002
    """An error of the Python half, in the words of the core."""
    text = f"invalid [{code}]: {message}" + (f"\n  help: {help}" if help else "")
    return InvalidError("invalid", code, message, None, help, text)
