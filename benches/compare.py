"""Latency, preparation and memory of nputwin beside the int8 runtimes, interleaved in one process.

`make bench`, or `python benches/compare.py --help`. Ratios are medians over rounds in which both runners run one after
the other, so that what else the machine does falls on both; the spread is that between the quartiles. Idle threads of a
runner look out for work for up to 40 ms after a run, on the cores that the other one is to use: a pause comes
between the two, and each timed run follows one that is not timed.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from networks import multiply_accumulates, quantized, with_open_batch

Run = Callable[[], Any]
BUILT = ("mobilenet_v3", "shufflenet_v2")


@cache
def image(batch: int) -> np.ndarray:
    """The same noise in every run."""
    return np.random.default_rng(1).normal(0, 1, (batch, 3, 224, 224)).astype(np.float32)


def nputwin_runner(path: str, target: str, threads: int, batch: int) -> Run:
    """A session of ours, ready to run."""
    import nputwin

    session = nputwin.Session(path, target=target, threads=threads)
    port = session.get_inputs()[0]
    feeds = {port.name: lite_image(batch) if path.endswith(".tflite") else image(batch)}
    return lambda: session.run(None, feeds)


def onnxruntime_runner(path: str, target: str, threads: int, batch: int) -> Run:
    """A session of onnxruntime's CPU provider."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    feeds = {session.get_inputs()[0].name: image(batch)}
    return lambda: session.run(None, feeds)


def litert_runner(path: str, target: str, threads: int, batch: int) -> Run:
    """LiteRT with its default delegate."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=path, num_threads=threads)
    port = interpreter.get_input_details()[0]
    if batch != port["shape"][0]:
        interpreter.resize_tensor_input(port["index"], [batch, *port["shape"][1:]])
    interpreter.allocate_tensors()
    interpreter.set_tensor(port["index"], lite_image(batch))
    return interpreter.invoke


@cache
def lite_image(batch: int) -> np.ndarray:
    """Noise as codes, channels last."""
    noise = np.ascontiguousarray(image(batch).transpose(0, 2, 3, 1))
    return np.clip(np.round(noise * 40), -128, 127).astype(np.int8)


RUNNERS = {"nputwin": nputwin_runner, "onnxruntime": onnxruntime_runner, "litert": litert_runner}


PAUSE = 0.06
"""Seconds until the threads of a runner sleep."""


def interleaved(ours: Run, peer: Run, seconds: float) -> tuple[list[float], list[float]]:
    """Times in ms of both, run in turn."""
    for runner in (ours, peer, ours, peer):
        runner()
    times: tuple[list[float], list[float]] = ([], [])
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(times[0]) < 9:
        for runner, into in zip((ours, peer), times, strict=True):
            time.sleep(PAUSE)
            runner()
            start = time.perf_counter()
            runner()
            into.append((time.perf_counter() - start) * 1e3)
    return times


def quartiles(values: list[float]) -> tuple[float, float, float]:
    """Lower quartile, median, upper quartile."""
    low, middle, high = np.percentile(values, [25, 50, 75])
    return float(low), float(middle), float(high)


def peak_memory() -> float:
    """Greatest resident size of this process in MiB; `getrusage` counts the parent that it was forked from, too."""
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measure_alone(arguments: argparse.Namespace) -> dict[str, float]:
    """Seconds from file to the end of the first run, and memory, of one runner in this process."""
    if arguments.runner == "nputwin":
        import nputwin  # noqa: F401
    elif arguments.runner == "onnxruntime":
        import onnxruntime  # noqa: F401
    else:
        from ai_edge_litert import interpreter  # noqa: F401
    # What the runners read: making it is no part of theirs.
    image(1), lite_image(1)
    before = peak_memory()
    start = time.perf_counter()
    run = RUNNERS[arguments.runner](arguments.model, arguments.target, 1, 1)
    run()
    first = time.perf_counter() - start
    steady = []
    for _ in range(5):
        start = time.perf_counter()
        run()
        steady.append(time.perf_counter() - start)
    peak = peak_memory()
    return {"prepare_ms": (first - min(steady)) * 1e3, "peak_mib": peak, "own_mib": peak - before}


def alone(runner: str, model: str, target: str) -> dict[str, float]:
    """`measure_alone` in processes of its own; the best of seven: new memory costs a virtual machine much or little."""
    command = [sys.executable, __file__, "--alone", "--runner", runner, "--model", model, "--target", target]
    runs = [json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout) for _ in range(7)]
    return {key: min(run[key] for run in runs) for key in runs[0]}


def pairs(models: Path, cache: Path, wanted: list[str]) -> list[tuple[str, Path, str, str]]:
    """Network, file, target and peer of every comparison."""
    files = sorted(models.glob("*.q.onnx")) + [quantized(name, cache) for name in BUILT]
    rows = [
        (f.name.removesuffix(".q.onnx"), f, t, "onnxruntime") for f in files for t in ("onnxruntime_cpu", "htp_v75")
    ]
    lite = ("litert_xnnpack_x86", "tflite_micro")
    rows += [(f.stem + ".tflite", f, t, "litert") for f in sorted(models.glob("*.tflite")) for t in lite]
    return [row for row in rows if not wanted or row[0] in wanted or row[2] in wanted]


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "--models", type=Path, default=Path("../shared/models"), help="folder of .q.onnx and .tflite files"
    )
    parser.add_argument("--cache", type=Path, default=Path("target/bench"), help="folder for networks that are made")
    parser.add_argument("--seconds", type=float, default=4.0, help="per comparison")
    parser.add_argument("--threads", type=int, nargs="*", default=[1, 2])
    parser.add_argument("--batch", type=int, nargs="*", default=[1, 8])
    parser.add_argument("--only", nargs="*", default=[], help="networks or targets")
    parser.add_argument("--peak", type=float, help="GMAC/s of one core, for the share of it (see `cargo bench`)")
    parser.add_argument("--no-memory", action="store_true", help="leave preparation and memory out")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    parser.add_argument("--alone", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--runner", help=argparse.SUPPRESS)
    parser.add_argument("--model", help=argparse.SUPPRESS)
    parser.add_argument("--target", default="", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.alone:
        print(json.dumps(measure_alone(arguments)))
        return
    packages = ", ".join(f"{p} {version(p)}" for p in ("nputwin", "onnxruntime", "ai-edge-litert"))
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    cpu = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), "?")
    print(f"{cpu}; {packages}\n")
    print("| network | target | peer | threads | batch | ours ms | peer ms | ratio | spread | GMAC/s | of peak |")
    print("|---|---|---|---|---|---|---|---|---|---|---|")
    rows = pairs(arguments.models, arguments.cache, arguments.only)
    figures = []
    for name, path, target, peer in rows:
        macs = multiply_accumulates(path) if path.suffix == ".onnx" else 0
        for threads in arguments.threads:
            for batch in arguments.batch:
                model = str(with_open_batch(path, arguments.cache) if batch > 1 and path.suffix == ".onnx" else path)
                try:
                    ours = nputwin_runner(model, target, threads, batch)
                    other = RUNNERS[peer](model, target, threads, batch)
                    mine, theirs = interleaved(ours, other, arguments.seconds)
                except Exception as error:
                    print(f"| {name} | {target} | {peer} | {threads} | {batch} | {str(error).splitlines()[0]} |")
                    continue
                low, ratio, high = quartiles([a / b for a, b in zip(mine, theirs, strict=True)])
                best, median = min(mine), quartiles(mine)[1]
                rate = macs * batch / median / 1e6
                share = f"{100 * rate / arguments.peak / threads:.0f} %" if arguments.peak and macs else ""
                print(
                    f"| {name} | {target} | {peer} | {threads} | {batch} | {median:.2f} | {quartiles(theirs)[1]:.2f} | "
                    f"{ratio:.2f} | {low:.2f} to {high:.2f} | {f'{rate:.0f}' if macs else ''} | {share} |",
                    flush=True,
                )
                figures.append(
                    {
                        "network": name,
                        "target": target,
                        "peer": peer,
                        "threads": threads,
                        "batch": batch,
                        "ratio": ratio,
                        "quartiles": [low, high],
                        "best_ratio": best / min(theirs),
                        "ours_ms": median,
                        "peer_ms": quartiles(theirs)[1],
                        "gmac_per_s": rate,
                    }
                )
    if not arguments.no_memory:
        print(
            "\n| network | target | prepare ms, ours | peer | peak MiB, ours | peer | of the model alone, ours | peer |"
        )
        print("|---|---|---|---|---|---|---|---|")
        for name, path, target, peer in rows:
            try:
                mine, theirs = alone("nputwin", str(path), target), alone(peer, str(path), target)
            except subprocess.CalledProcessError as error:
                print(f"| {name} | {target} | {error.stderr.splitlines()[-1]} |")
                continue
            columns = (("prepare_ms", 1), ("peak_mib", 0), ("own_mib", 0))
            cells = [f"{r[key]:.{digits}f}" for key, digits in columns for r in (mine, theirs)]
            print(f"| {name} | {target} | {' | '.join(cells)} |", flush=True)
            figures.append({"network": name, "target": target, "ours": mine, "peer": theirs})
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
