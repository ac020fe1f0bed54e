"""The founding complaint with its own weights: ``python -m nputwin.demo --seed-weights``.

quic/aimet issue 3978 reports that simulation and device drift apart with depth, and prints the script that shows it.
The script seeds torch once and then draws weights, dummies and calibration data in a fixed order, so its networks can
be rebuilt to the bit. This module replays that order, calibrates as AIMET does (weights quantized, activations not,
minimum and maximum), hands weights, input and ranges to ``nputwin demo --weights``, and prints the published numbers
beside the emulated ones.

Without ``--seed-weights`` the arguments go to ``nputwin demo``, which makes weights of its own and needs no torch.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import torch

SEED = 1517
SHAPE = (1, 64, 128, 128)
CALIBRATION_INPUTS = 10
FOUR_DEPTHS = (1, 9, 19, 29)
FIFTEEN_DEPTHS = tuple(range(1, 30, 2))

# What counts as reproduced: |ratio - 1| of emulated to published numbers.
MEAN_RATIO_LIMIT = 0.03
ROW_RATIO_LIMIT = 0.08
NORMALIZED_LIMIT = 0.06
OFF_BY_N_LIMIT_WITH_ADD = 1

Arrays = dict[str, npt.NDArray[np.float32]]


@dataclass(frozen=True)
class Table:
    """One of the published tables: the run of the script that printed it."""

    key: str
    """Key of the published rows in ``demo.json``."""
    title: str
    cumulative_add: bool
    depths: tuple[int, ...]


FIFTEEN_ROWS = Table("fifteen_rows", "The reporter's table", True, FIFTEEN_DEPTHS)
WITH_ADD = Table("with_add", "The maintainer's table, with the cumulative Add", True, FOUR_DEPTHS)
WITHOUT_ADD = Table("without_add", "The maintainer's table, without the cumulative Add", False, FOUR_DEPTHS)


@dataclass(frozen=True)
class Row:
    """One depth of a table: published and emulated numbers, keyed as in ``demo.json``."""

    depth: int
    published: dict[str, Any]
    device: dict[str, Any]
    host: dict[str, Any]

    def ratio(self, key: str) -> float:
        """Emulated over published."""
        return float(self.device[key]) / float(self.published[key])


def seed_networks(table: Table) -> Iterator[Arrays]:
    """Replays the script's random stream and gives one network per depth, as ``nputwin demo --weights`` takes it.

    Args:
        table: Which run of the script to replay. Its depths share one stream, so they cannot be replayed alone.

    Yields:
        float32 arrays by name (see ``nputwin demo --help``), for each depth in order.
    """
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        state = torch.get_rng_state()
    for depth in table.depths:
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            torch.set_rng_state(state)
            arrays = _network(depth, table.cumulative_add)
            state = torch.get_rng_state()
        yield arrays


def _network(depth: int, cumulative_add: bool) -> Arrays:
    """One call of the script's ``main``: the order of the random draws is the script's."""
    import torch
    from torch import nn
    from torch.nn import functional

    weights: list[torch.Tensor] = []
    biases: list[torch.Tensor] = []
    for _ in range(depth):
        conv, norm = nn.Conv2d(SHAPE[1], SHAPE[1], 3, padding="same"), nn.BatchNorm2d(SHAPE[1])
        assert conv.bias is not None
        assert norm.running_mean is not None
        assert norm.running_var is not None
        gain = norm.weight / torch.sqrt(norm.running_var + norm.eps)
        weights.append(conv.weight * gain.view(-1, 1, 1, 1))
        biases.append((conv.bias - norm.running_mean) * gain + norm.bias)
    torch.rand(SHAPE)  # the input with which AIMET traces the model to fold its batch normalizations
    measured = torch.randn(SHAPE)

    quantized = [_quantize_weight(w) for w in weights]
    ranges: dict[str, tuple[float, float]] = {}

    def widen(name: str, values: torch.Tensor) -> None:
        low, high = (float(v) for v in torch.aminmax(values))
        old = ranges.get(name, (low, high))
        ranges[name] = (min(low, old[0]), max(high, old[1]))

    for _ in range(CALIBRATION_INPUTS):
        x = torch.randn(SHAPE)
        widen("range.input", x)
        for i, (weight, bias) in enumerate(zip(quantized, biases, strict=True)):
            y = functional.conv2d(x, weight, bias, padding=1).clamp_(0, 6)
            widen(f"range.relu6.{i}", y)
            if cumulative_add:
                x = x + y
                widen(f"range.add.{i}", x)
            else:
                x = y

    arrays: Arrays = {"input": measured.numpy()}
    for i, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
        arrays[f"weight.{i}"], arrays[f"bias.{i}"] = weight.numpy(), bias.numpy()
    for name, ends in ranges.items():
        arrays[name] = np.array(ends, dtype=np.float32)
    return arrays


def _quantize_weight(weight: torch.Tensor) -> torch.Tensor:
    """Eight bits, symmetric, one scale per output channel."""
    import torch

    flat = weight.flatten(1)
    scale = torch.maximum(flat.amax(1).clamp(min=0) / 127, -flat.amin(1).clamp(max=0) / 128)
    zero_point = torch.zeros(len(scale), dtype=torch.int32)
    return torch.fake_quantize_per_channel_affine(weight, scale, zero_point, 0, -128, 127)


def run_table(table: Table, output_dir: Path, options: Sequence[str], say: Callable[[str], None]) -> list[Row]:
    """Rebuilds and runs the networks of one table.

    Args:
        table: The table.
        output_dir: Where ``nputwin demo`` writes its chart and numbers.
        options: Further arguments for ``nputwin demo``.
        say: Called with a line of progress.

    Returns:
        One row per depth.
    """
    with tempfile.TemporaryDirectory() as folder:
        paths = []
        for depth, arrays in zip(table.depths, seed_networks(table), strict=True):
            say(f"{table.title}: {depth} layers calibrated")
            path = Path(folder) / f"{depth}.npz"
            named: dict[str, Any] = dict(arrays)  # numpy's stubs disagree about `allow_pickle` among the keywords
            np.savez(path, **named)
            paths.append(str(path))
        say(f"{table.title}: running {len(paths)} networks")
        outcome = command_json(["demo", *options, "--output-dir", str(output_dir), "--weights", *paths])
    published = {row["depth"]: row for row in outcome["published"][table.key]}
    return [Row(r["depth"], published[r["depth"]], r["device"], r["host"]) for r in outcome["rows"]]


def command_json(arguments: Sequence[str]) -> dict[str, Any]:
    """What a command prints with ``--json``, run in a process of its own; ends this one where the command fails."""
    program = "import sys; from nputwin._native import run_cli; sys.exit(run_cli(['nputwin', *sys.argv[1:]]))"
    done = subprocess.run([sys.executable, "-c", program, "--json", *arguments], stdout=subprocess.PIPE, check=False)
    if done.returncode != 0:
        raise SystemExit(done.returncode)
    outcome: dict[str, Any] = json.loads(done.stdout)
    return outcome


def failures(table: Table, rows: Sequence[Row]) -> list[str]:
    """What lies outside the bounds within which the published numbers count as reproduced; empty where nothing does."""
    found = []
    if table is FIFTEEN_ROWS:
        errors = [abs(row.ratio("mse") - 1) for row in rows]
        mean = sum(errors) / len(errors)
        if mean > MEAN_RATIO_LIMIT:
            found.append(f"mean |ratio - 1| of the MSE is {mean:.2%}, above {MEAN_RATIO_LIMIT:.0%}")
        found += [
            f"{row.depth} layers: the MSE is off by {error:.2%}, above {ROW_RATIO_LIMIT:.0%}"
            for row, error in zip(rows, errors, strict=True)
            if error > ROW_RATIO_LIMIT
        ]
        return found
    slack = OFF_BY_N_LIMIT_WITH_ADD if table.cumulative_add else 0
    for row in rows:
        for key in ("mse_normalized", "l1_normalized"):
            error = abs(row.ratio(key) - 1)
            if error > NORMALIZED_LIMIT:
                found.append(f"{row.depth} layers: {key} is off by {error:.2%}, above {NORMALIZED_LIMIT:.0%}")
        expected, actual = row.published["off_by_n"], row.device["off_by_n"]
        if abs(expected - actual) > slack:
            found.append(f"{row.depth} layers: off by {actual} instead of {expected}")
    return found


def render(table: Table, rows: Sequence[Row]) -> str:
    """A table as text: published, emulated and ratio of each column, and the advice beside it."""
    keys = [("mse", "MSE"), ("l1", "L1")]
    if table is not FIFTEEN_ROWS:
        keys = [("mse", "MSE"), ("mse_normalized", "MSE/s²"), ("l1", "L1"), ("l1_normalized", "L1/s")]
    header = ["layers"]
    for _, name in keys:
        header += [name, "here", "ratio"]
    offs = table is not FIFTEEN_ROWS
    header += ["off by", "here"] if offs else []
    header += ["host MSE/s²"]
    body = []
    for row in rows:
        cells = [str(row.depth)]
        for key, _ in keys:
            cells += [f"{row.published[key]:g}", f"{row.device[key]:.4g}", f"{row.ratio(key):.3f}"]
        cells += [str(row.published["off_by_n"]), str(row.device["off_by_n"])] if offs else []
        body.append([*cells, f"{row.host['mse_normalized']:.4g} (device {row.device['mse_normalized']:.4g})"])
    widths = [max(map(len, column)) for column in zip(header, *body, strict=True)]
    lines = [table.title]
    lines += [
        "  ".join(cell.rjust(width) for cell, width in zip(cells, widths, strict=True)) for cells in [header, *body]
    ]
    errors = [abs(row.ratio("mse") - 1) for row in rows]
    lines.append(f"MSE: mean |ratio - 1| {sum(errors) / len(errors):.2%}, largest {max(errors):.2%}")
    return "\n".join(lines) + "\n"


def main(argv: Sequence[str] | None = None) -> int:
    """Command line of the module.

    Args:
        argv: Arguments without the program's name; those of the process by default.

    Returns:
        Exit code: 0, or 1 where ``--check`` finds a number outside its bounds, or the code of ``nputwin demo``.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    if "--seed-weights" not in arguments and not {"-h", "--help"} & set(arguments):
        from nputwin._native import run_cli

        return int(run_cli(["nputwin", "demo", *arguments]))
    parser = argparse.ArgumentParser(prog="nputwin demo", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument(
        "--seed-weights", action="store_true", help="replay the issue's own random stream (needs torch)"
    )
    parser.add_argument("--all-depths", action="store_true", help="also run the fifteen rows of the reporter's table")
    parser.add_argument("--check", action="store_true", help="exit with 1 where a number is not reproduced")
    parser.add_argument("--output-dir", "-o", type=Path, default=Path("demo-out"), help="where charts and numbers go")
    parser.add_argument("--assume", action="append", default=[], metavar="RULE=ALTERNATIVE")
    parser.add_argument("--threads", "-j", type=int, default=0, help="0 for as many as the machine has")
    parser.add_argument("--json", action="store_true", help="print one JSON document instead of tables")
    options = parser.parse_args(arguments)
    try:
        import torch
    except ImportError:
        print("--seed-weights replays torch's random numbers: pip install 'nputwin[torch]'", file=sys.stderr)
        return 2
    if options.threads > 0:
        torch.set_num_threads(options.threads)

    further = ["--threads", str(options.threads)]
    for assumption in options.assume:
        further += ["--assume", assumption]
    tables = [WITH_ADD, WITHOUT_ADD] + ([FIFTEEN_ROWS] if options.all_depths else [])
    document: dict[str, Any] = {}
    wrong: list[str] = []
    for table in tables:
        rows = run_table(table, options.output_dir / table.key, further, lambda line: print(line, file=sys.stderr))
        found = failures(table, rows)
        wrong += [f"{table.title}: {line}" for line in found]
        document[table.key] = {"rows": [vars(row) for row in rows], "outside_bounds": found}
        if not options.json:
            print(render(table, rows))
    if options.json:
        print(json.dumps(document, indent=2))
    for line in wrong:
        print(line, file=sys.stderr)
    if not wrong and not options.json:
        print("All numbers are reproduced within their bounds.")
    return 1 if wrong and options.check else 0


if __name__ == "__main__":
    raise SystemExit(main())
