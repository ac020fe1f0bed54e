"""Fixtures: small models, the folder of shared material, the target that the host's onnxruntime corresponds to."""

import os
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))

ROOT = Path(__file__).resolve().parents[2]


def shared_folder(name: str) -> Path | None:
    """`shared/NAME` beside the repository or beside one of its parents."""
    override = os.environ.get("NPUTWIN_SHARED")
    bases = [Path(override)] if override else [parent / "shared" for parent in ROOT.parents]
    return next((base / name for base in bases if (base / name).is_dir()), None)


def host_target() -> str | None:
    """The target of onnxruntime's CPU provider on this machine; None where there is none."""
    cpuinfo = Path("/proc/cpuinfo")
    flags = set(cpuinfo.read_text().split()) if cpuinfo.is_file() else set()
    if flags & {"avx512_vnni", "avx_vnni"}:
        return "onnxruntime_cpu"
    if "avx2" in flags:
        return "onnxruntime_cpu_avx2"
    return "onnxruntime_cpu_avx" if "avx" in flags else None


def fresh_rng() -> np.random.Generator:
    """Random numbers of this run alone. The seed stands in a failing test's output; `NPUTWIN_SEED` brings it back."""
    seed = int(os.environ.get("NPUTWIN_SEED") or int.from_bytes(os.urandom(4), "little"))
    print(f"NPUTWIN_SEED={seed}")
    return np.random.default_rng(seed)


@pytest.fixture(scope="session")
def target() -> str:
    name = host_target()
    if name is None:
        pytest.skip("no target stands for onnxruntime on a CPU without AVX")
    return name


@pytest.fixture
def rng(request: pytest.FixtureRequest) -> np.random.Generator:
    """Random numbers that depend on the test's name only."""
    return np.random.default_rng(list(request.node.name.encode()))
