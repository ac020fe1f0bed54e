"""TensorFlow Lite models of one quantized operator, and how ai-edge-litert runs them."""

from __future__ import annotations

from dataclasses import dataclass

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter, OpResolverType

RESOLVERS = {
    "litert_ref": OpResolverType.BUILTIN_REF,
    "litert_opt_x86": OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
    "litert_xnnpack_x86": OpResolverType.AUTO,
}

TYPES = {"uint8": 3, "int8": 9, "int16": 7, "int32": 2, "int64": 4, "float32": 0}


@dataclass(frozen=True)
class Value:
    """A tensor: its shape, its type, and its encoding; constant where it has data."""

    shape: tuple[int, ...]
    dtype: str = "int8"
    scales: tuple[float, ...] = ()
    zero: int = 0
    axis: int = 0
    data: np.ndarray | None = None

    def tensor(self, name: str, buffer: int) -> schema.TensorT:
        t = schema.TensorT()
        t.name, t.shape, t.type, t.buffer = name, list(self.shape), TYPES[self.dtype], buffer
        if self.scales:
            t.quantization = schema.QuantizationParametersT()
            t.quantization.scale = [float(np.float32(s)) for s in self.scales]
            t.quantization.zeroPoint = [self.zero] * len(self.scales)
            t.quantization.quantizedDimension = self.axis
        return t


def one_op(op: str, inputs: list[Value], output: Value, options: object = None) -> bytes:
    """A model of one operator; `options` is an object of the schema's `<Op>OptionsT` with its fields set."""
    model, graph, operator, code = schema.ModelT(), schema.SubGraphT(), schema.OperatorT(), schema.OperatorCodeT()
    model.version = 3
    model.buffers = [schema.BufferT()]
    graph.tensors = []
    for i, value in enumerate([*inputs, output]):
        buffer = schema.BufferT()
        if value.data is not None:
            buffer.data = np.frombuffer(np.ascontiguousarray(value.data.astype(value.dtype)).tobytes(), np.uint8)
        model.buffers.append(buffer)
        graph.tensors.append(value.tensor(f"t{i}", i + 1))
    number = getattr(schema.BuiltinOperator, op)
    code.builtinCode, code.deprecatedBuiltinCode, code.version = number, min(number, 127), 1
    model.operatorCodes = [code]
    operator.opcodeIndex = 0
    operator.inputs, operator.outputs = list(range(len(inputs))), [len(inputs)]
    if options is not None:
        operator.builtinOptions = options
        operator.builtinOptionsType = getattr(schema.BuiltinOptions, type(options).__name__.removesuffix("T"))
    graph.operators = [operator]
    graph.inputs = [i for i, value in enumerate(inputs) if value.data is None]
    graph.outputs = [len(inputs)]
    model.subgraphs = [graph]
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def run_op(model: bytes, feeds: list[np.ndarray], target: str) -> np.ndarray:
    """The output under the kernels that a target describes, on one thread."""
    resolver = RESOLVERS[target]
    interpreter = Interpreter(model_content=model, experimental_op_resolver_type=resolver, num_threads=1)
    interpreter.allocate_tensors()
    for port, feed in zip(interpreter.get_input_details(), feeds, strict=True):
        interpreter.set_tensor(port["index"], feed)
    interpreter.invoke()
    return interpreter.get_tensor(interpreter.get_output_details()[0]["index"]).copy()
