"""The command line, from the compiled module."""

from __future__ import annotations

import signal
import sys

from nputwin import _native


def main() -> int:
    """Runs `nputwin` with the arguments of this process and gives its exit code."""
    # The command line runs outside the interpreter, which could not act on Ctrl-C before it returns.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    if sys.argv[1:2] == ["demo"] and "--seed-weights" in sys.argv:
        from nputwin import demo

        return demo.main(sys.argv[2:])
    return _native.run_cli(["nputwin", *sys.argv[1:]])
