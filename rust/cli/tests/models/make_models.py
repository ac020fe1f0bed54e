"""Makes the models beside this file: a residual block, in float and quantized (QDQ) by onnxruntime.

Run with onnx and onnxruntime installed. Weights and calibration data come from seed 7; the files are checked in.
"""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

HERE = Path(__file__).parent


def residual(rng: np.random.Generator) -> onnx.ModelProto:
    def constant(name: str, *shape: int) -> onnx.TensorProto:
        return numpy_helper.from_array((rng.standard_normal(shape) * 0.3).astype(np.float32), name)

    nodes = [
        helper.make_node("Conv", ["x", "w1", "b1"], ["conv1"], "conv1", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["conv1"], ["relu1"], "relu1"),
        helper.make_node("Conv", ["relu1", "w2", "b2"], ["conv2"], "conv2", pads=[1, 1, 1, 1]),
        helper.make_node("Add", ["relu1", "conv2"], ["sum"], "add"),
        helper.make_node("GlobalAveragePool", ["sum"], ["pool"], "pool"),
        helper.make_node("Flatten", ["pool"], ["flat"], "flatten"),
        helper.make_node("Gemm", ["flat", "w3", "b3"], ["y"], "fc", transB=1),
    ]
    graph = helper.make_graph(
        nodes,
        "residual",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, 6, 6])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 5])],
        [
            constant("w1", 4, 3, 3, 3),
            constant("b1", 4),
            constant("w2", 4, 4, 3, 3),
            constant("b2", 4),
            constant("w3", 5, 4),
            constant("b3", 5),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    return model


class Samples(CalibrationDataReader):
    def __init__(self, rng: np.random.Generator) -> None:
        self.batches = iter([{"x": rng.standard_normal((4, 3, 6, 6)).astype(np.float32)} for _ in range(4)])

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self.batches, None)


def main() -> None:
    rng = np.random.default_rng(7)
    onnx.save(residual(rng), HERE / "residual.onnx")
    quantize_static(
        HERE / "residual.onnx",
        HERE / "residual.qdq.onnx",
        Samples(rng),
        quant_format=QuantFormat.QDQ,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        per_channel=True,
    )


if __name__ == "__main__":
    main()
