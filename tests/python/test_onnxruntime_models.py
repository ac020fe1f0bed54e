"""Every quantized tensor of the benchmark networks equals onnxruntime's, live."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from conftest import shared_folder

import nputwin

FOLDER = shared_folder("models")
MODELS = sorted(FOLDER.glob("*.onnx")) if FOLDER else []
INPUTS = 8

pytestmark = pytest.mark.skipif(not MODELS, reason="no folder shared/models beside the repository")


def with_quantized_outputs(model: onnx.ModelProto) -> list[str]:
    """Adds the output of every QuantizeLinear to the graph's outputs and gives their names."""
    types = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    names = []
    for node in model.graph.node:
        if node.op_type == "QuantizeLinear":
            names.append(node.output[0])
            model.graph.output.append(onnx.helper.make_tensor_value_info(names[-1], types[node.input[2]], None))
    return names


@pytest.mark.parametrize("path", MODELS, ids=lambda path: path.stem)
def test_all_quantized_tensors_equal_onnxruntime(path: Path, target: str) -> None:
    session = nputwin.Session(path, target=target)
    model = onnx.load(path)
    names = with_quantized_outputs(model)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    peer = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    (port,) = session.get_inputs()
    rng = np.random.default_rng(0)
    compared = 0
    wrong: dict[str, int] = {}
    for _ in range(INPUTS):
        x = rng.standard_normal(port.shape, dtype=np.float32)
        expected = dict(zip(names, peer.run(names, {port.name: x}), strict=True))
        dumped = session.dump({port.name: x})
        by_name = {alias: tensor for tensor in dumped.values() for alias in (tensor.name, *tensor.aliases)}
        for name in names:
            codes = by_name[name].codes
            assert codes is not None, f"{name} is not held as codes"
            assert codes.dtype == expected[name].dtype
            assert codes.shape == expected[name].shape
            compared += codes.size
            differing = int(np.count_nonzero(codes != expected[name]))
            if differing:
                wrong[name] = wrong.get(name, 0) + differing
    assert not wrong, f"{sum(wrong.values())} of {compared} elements differ, first in {next(iter(wrong))}: {wrong}"
    assert compared > 1_000_000
