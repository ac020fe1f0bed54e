"""The node cases of the installed `onnx` package under the target `float`.

Every case runs twice: with its inputs fed, and with its inputs constant, so that the model is computed while it is
planned. `tests/onnx_node_report.md` says which cases do not pass and why; `NPUTWIN_UPDATE=1` writes it anew.
"""

import os
import re
import warnings
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest

import nputwin

onnx = pytest.importorskip("onnx")

from onnx import TensorProto, numpy_helper  # noqa: E402

REPORT = Path(__file__).resolve().parents[1] / "onnx_node_report.md"

#: Operators that no quantized network computes with, by what they are for.
OUTSIDE = {
    "ai.onnx.ml": "classical machine learning",
    "ai.onnx.preview.training": "training",
    **dict.fromkeys(["NegativeLogLikelihoodLoss", "SoftmaxCrossEntropyLoss"], "training"),
    **dict.fromkeys(["If", "Loop", "Scan"], "control flow"),
    **dict.fromkeys(
        [
            *["SequenceMap", "SequenceInsert", "SequenceErase", "SequenceAt", "SequenceLength", "SplitToSequence"],
            *["SequenceConstruct", "SequenceEmpty", "ConcatFromSequence"],
            *["OptionalHasElement", "OptionalGetElement", "Optional"],
        ],
        "sequences and optionals",
    ),
    **dict.fromkeys(["StringNormalizer", "StringSplit", "StringConcat", "RegexFullMatch", "TfIdfVectorizer"], "text"),
    **dict.fromkeys(["Bernoulli", "RandomUniformLike", "RandomNormalLike", "Multinomial"], "random numbers"),
    "ImageDecoder": "image files",
}

#: Errors of inputs that must be known before the run, or that no Python array holds.
KNOWN_BEFORE = {"input_not_constant", "quantization_dynamic", "array_dtype"}

#: Cases whose numbers are given with four digits.
FOUR_DIGITS = {
    "test_averagepool_2d_ceil_last_window_starts_on_pad",
    "test_gridsample_bicubic",
    "test_roialign_aligned_false",
    "test_roialign_aligned_true",
}

#: Numbers that differ from the case's, and why.
OTHER_READING = {
    "test_resize_downsample_scales_linear_align_corners": "divides by the size before it is rounded; runtimes do not",
    "test_resize_downsample_scales_cubic_align_corners": "divides by the size before it is rounded; runtimes do not",
}


def outside(test) -> str | None:
    """What a case is for, where that is outside of nputwin's domain."""
    if "training" in test.name and "dropout" in test.name:
        return "training"
    for node in test.model.graph.node:
        for key in (node.domain, node.op_type):
            if key in OUTSIDE:
                return OUTSIDE[key]
    kinds = {v.type.WhichOneof("value") for v in [*test.model.graph.input, *test.model.graph.output]}
    if kinds - {"tensor_type", None}:
        return "sequences and optionals"
    elements = {v.type.tensor_type.elem_type for v in [*test.model.graph.input, *test.model.graph.output]}
    return "text" if TensorProto.STRING in elements else None


def as_array(value) -> np.ndarray:
    return numpy_helper.to_array(value) if isinstance(value, TensorProto) else np.asarray(value)


def with_constants(model, feeds, names):
    """The model with some inputs as initializers, and the feeds that remain."""
    model = type(model).FromString(model.SerializeToString())
    kept = [i for i in model.graph.input if i.name not in names]
    del model.graph.input[:]
    model.graph.input.extend(kept)
    model.graph.initializer.extend(numpy_helper.from_array(feeds[n], n) for n in names)
    return model, {name: value for name, value in feeds.items() if name not in names}


def run(model, feeds) -> list[np.ndarray]:
    return nputwin.Session(model, target="float", threads=1).run(None, feeds)


def run_fed(model, feeds) -> list[np.ndarray]:
    """With floats fed, and with what shapes depend on as constants."""
    integers = [name for name, value in feeds.items() if value.dtype.kind in "iub"]
    for constant in ([], integers, list(feeds)):
        try:
            return run(*with_constants(model, feeds, constant))
        except nputwin.NputwinError as error:
            if error.code not in KNOWN_BEFORE or constant == list(feeds):
                raise
    raise AssertionError("unreachable")


def difference(name: str, got: np.ndarray, expected: np.ndarray) -> str | None:
    """What differs: integers must be equal, floats within the resolution of their type."""
    kind = expected.dtype.name
    tolerance = {"float64": 1e-7, "float32": 1e-5, "float16": 2e-3, "bfloat16": 1.6e-2}.get(kind, 0.0)
    if name in FOUR_DIGITS:
        tolerance = 1e-3
    # numpy has none of these types: bfloat16 comes as float32, integers of two and four bits as such of eight.
    narrow = {"int4": np.int8, "uint4": np.uint8, "int2": np.int8, "uint2": np.uint8}
    if other := {"bfloat16": np.float32, **narrow}.get(kind):
        expected = expected.astype(other)
    if got.dtype != expected.dtype or got.shape != expected.shape:
        return f"{got.dtype} {got.shape} instead of {expected.dtype} {expected.shape}"
    if tolerance == 0.0:
        return None if np.array_equal(got, expected) else "integers differ"
    a, b = got.astype(np.float64), expected.astype(np.float64)
    finite = np.abs(b[np.isfinite(b)])
    # Sums that cancel keep the error of their terms.
    bound = tolerance * (np.abs(b) + 0.1 * finite.max(initial=0.0))
    with np.errstate(invalid="ignore"):
        close = (a == b) | (np.isnan(a) & np.isnan(b)) | (np.abs(a - b) <= bound)
    return None if close.all() else f"{got[~close][0]} instead of {expected[~close][0]}"


def outcome(test) -> tuple[str, str]:
    """`passed`, `refused`, `wrong` or a known `other` reading, and why."""
    for inputs, outputs in test.data_sets:
        try:
            feeds = {p.name: as_array(v) for p, v in zip(test.model.graph.input, inputs, strict=False)}
            expected = [as_array(v) for v in outputs]
            runs = [run_fed(test.model, feeds), run(*with_constants(test.model, feeds, list(feeds)))]
        except nputwin.UnsupportedError as error:
            return "refused", reason(test, error)
        except nputwin.NputwinError as error:
            return "wrong", f"{error.code}: {error}"
        except (TypeError, ValueError, KeyError) as error:
            return "refused", f"the case cannot be fed: {error}"
        for results in runs:
            for got, wanted in zip(results, expected, strict=True):
                if text := difference(test.name, got, wanted):
                    return ("other", OTHER_READING[test.name]) if test.name in OTHER_READING else ("wrong", text)
    return "passed", ""


def reason(test, error: nputwin.NputwinError) -> str:
    """Why a case is refused, without the names of its tensors."""
    text = error.message
    if known := re.search(r"operator \S+ is not implemented", text):
        return known.group()
    operators = sorted({node.op_type for node in test.model.graph.node})
    return f"{', '.join(operators[:2])}: {error.code}: " + re.sub(r"'[^']*_[^']*'", "a tensor", text)


def render(version: str, total: int, beyond: Counter, refused: dict[str, list[str]], wrong: dict[str, str]) -> str:
    """The report."""
    within = total - beyond.total()
    passed = within - sum(map(len, refused.values())) - len({**OTHER_READING, **wrong})
    lines = [
        "# ONNX node cases",
        "",
        f"The node cases of onnx {version} under the target `float`, written by `tests/python/test_onnx_nodes.py`.",
        "",
        f"**{passed} of {within} pass.** {total - within} of {total} cases are outside of the domain.",
        "",
        "## Refused",
        "",
        "| cases | why |",
        "|---:|---|",
        *(f"| {len(names)} | {why} |" for why, names in sorted(refused.items(), key=lambda r: (-len(r[1]), r[0]))),
        "",
        "## Other numbers",
        "",
        *(f"- `{name}`: {why}" for name, why in sorted({**OTHER_READING, **wrong}.items())),
        "",
        "## Outside of the domain",
        "",
        "| cases | what for |",
        "|---:|---|",
        *(f"| {count} | {why} |" for why, count in sorted(beyond.items(), key=lambda b: (-b[1], b[0]))),
        "",
    ]
    return "\n".join(lines)


def test_node_cases() -> None:
    with warnings.catch_warnings():
        # The builders divide by zero and overflow on purpose.
        warnings.simplefilter("ignore")
        from onnx.backend.test.case.node import collect_testcases

        tests = collect_testcases(None)
    beyond: Counter = Counter()
    refused: dict[str, list[str]] = defaultdict(list)
    wrong: dict[str, str] = {}
    for test in tests:
        if why := outside(test):
            beyond[why] += 1
            continue
        verdict, why = outcome(test)
        if verdict == "refused":
            refused[why].append(test.name)
        elif verdict == "wrong":
            wrong[test.name] = why
        elif verdict == "passed" and test.name in OTHER_READING:
            wrong[test.name] = "passes, and is listed as another reading"
    text = render(onnx.__version__, len(tests), beyond, refused, wrong)
    if os.environ.get("NPUTWIN_UPDATE"):
        REPORT.write_text(text)
    assert not wrong, "\n".join(f"{name}: {why}" for name, why in wrong.items())
    recorded = REPORT.read_text()
    if f"onnx {onnx.__version__} " in recorded:
        assert text == recorded, "the report is out of date: NPUTWIN_UPDATE=1 writes it"
