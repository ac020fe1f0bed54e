"""Every ONNX operator explains its elements: the node cases of the onnx package, on reals."""

import warnings

import numpy as np
import pytest

import nputwin

pytest.importorskip("onnx")

# Its tensor is a constant of the graph: no kernel computes it.
CONSTANTS = {"test_constant"}


def same(result: str, value: np.generic) -> bool:
    if value.dtype.kind == "b":
        return result == str(bool(value)).lower()
    if value.dtype.kind in "iu":
        return result == str(value)
    return bool(value.dtype.type(result) == value or (np.isnan(value) and result == "NaN"))


def test_node_cases() -> None:
    with warnings.catch_warnings():
        # The builders divide by zero and overflow on purpose.
        warnings.simplefilter("ignore")
        from onnx.backend.test.case.node import collect_testcases

        tests = collect_testcases(None)
    explained = 0
    for test in tests:
        if test.name in CONSTANTS or not test.data_sets:
            continue
        try:
            session = nputwin.Session(test.model, target="float")
            ports = zip(session.get_inputs(), test.data_sets[0][0], strict=True)
            feeds = {port.name: np.asarray(value) for port, value in ports}
            outputs = session.run(None, feeds)
        except (nputwin.NputwinError, ValueError, TypeError):
            # What is not computed is the subject of test_onnx_nodes.py.
            continue
        for port, output in zip(session.get_outputs(), outputs, strict=True):
            for index in {0, output.size // 2, output.size - 1} if output.size else ():
                explanation = session.explain(port.name, index, feeds)
                place = f"{test.name}: {explanation}"
                assert same(explanation.trace["result"], output.reshape(-1)[index]), place
                assert explanation.trace["steps"] or not feeds, place
                explained += 1
    assert explained > 3000
