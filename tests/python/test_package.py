"""The package as a whole: what it imports, its command line, its size."""

import importlib.metadata
import subprocess
import sys
from pathlib import Path

import nputwin


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, timeout=120, check=False)


def test_import_needs_neither_torch_nor_onnx() -> None:
    code = "import sys, nputwin; print(sorted({'torch', 'onnx', 'onnxruntime', 'matplotlib'} & set(sys.modules)))"
    result = run("-c", code)
    assert result.stdout.strip() == "[]", result.stderr


def test_command_line_through_the_package() -> None:
    result = run("-m", "nputwin", "spec", "list")
    assert result.returncode == 0, result.stderr
    assert "htp_v75" in result.stdout
    assert run("-m", "nputwin", "no-such-command").returncode == 2
    assert run("-m", "nputwin", "info", "/nonexistent.onnx").returncode == 2


def test_console_script_and_version() -> None:
    (entry,) = importlib.metadata.entry_points(group="console_scripts", name="nputwin")
    assert entry.value == "nputwin._cli:main"
    assert importlib.metadata.version("nputwin") == nputwin.__version__


def test_the_compiled_module_fits_a_small_wheel() -> None:
    (module,) = Path(nputwin.__file__).parent.glob("_native*.so")
    # A wheel compresses it to less than half; the limit of the wheel is 10 MB.
    assert module.stat().st_size < 20_000_000
    assert module.name == "_native.abi3.so"


def test_every_public_name_has_a_docstring() -> None:
    for name in nputwin.__all__:
        if name != "__version__":
            assert getattr(nputwin, name).__doc__, name
