"""Small `.tflite` files from the schema module of ai-edge-litert, and LiteRT's own results for them."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import flatbuffers
import numpy as np
import numpy.typing as npt
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter, OpResolverType

Array = npt.NDArray[Any]

TYPES = {
    "float32": schema.TensorType.FLOAT32,
    "float16": schema.TensorType.FLOAT16,
    "int32": schema.TensorType.INT32,
    "int64": schema.TensorType.INT64,
    "uint8": schema.TensorType.UINT8,
    "int8": schema.TensorType.INT8,
    "int16": schema.TensorType.INT16,
    "int4": schema.TensorType.INT4,
    "bool": schema.TensorType.BOOL,
}


def load(path: Path) -> Any:
    """The object tree of a file."""
    return schema.ModelT.InitFromObj(schema.Model.GetRootAs(path.read_bytes(), 0))


def pack(model: Any) -> bytes:
    """The file of an object tree."""
    builder = flatbuffers.Builder(1 << 20)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


@dataclass
class Net:
    """A model that grows tensor by tensor and operator by operator."""

    model: Any = field(init=False)
    graph: Any = field(init=False)

    def __post_init__(self) -> None:
        self.model = schema.ModelT()
        self.model.version = 3
        self.model.description = "test"
        self.model.operatorCodes = []
        self.model.buffers = [schema.BufferT()]
        self.graph = schema.SubGraphT()
        self.graph.tensors, self.graph.operators, self.graph.inputs, self.graph.outputs = [], [], [], []
        self.model.subgraphs = [self.graph]

    def tensor(
        self,
        shape: tuple[int, ...],
        dtype: str = "int8",
        scale: float | list[float] | None = None,
        zero_point: int = 0,
        data: Array | None = None,
        axis: int = 0,
        name: str | None = None,
    ) -> int:
        """Adds a tensor; with data it is constant."""
        tensor = schema.TensorT()
        tensor.shape = list(shape)
        tensor.type = TYPES[dtype]
        tensor.name = name or f"t{len(self.graph.tensors)}"
        tensor.buffer = 0
        if data is not None:
            raw = np.ascontiguousarray(data).tobytes()
            if dtype == "int4":
                codes = np.concatenate([data.ravel().astype(np.uint8) & 15, np.zeros(data.size % 2, np.uint8)])
                raw = (codes[0::2] | codes[1::2] << 4).tobytes()
            buffer = schema.BufferT()
            buffer.data = np.frombuffer(raw, np.uint8)
            self.model.buffers.append(buffer)
            tensor.buffer = len(self.model.buffers) - 1
        if scale is not None:
            quantization = schema.QuantizationParametersT()
            quantization.scale = np.atleast_1d(np.asarray(scale, np.float32))
            quantization.zeroPoint = np.full(len(quantization.scale), zero_point, np.int64)
            quantization.quantizedDimension = axis
            tensor.quantization = quantization
        self.graph.tensors.append(tensor)
        return len(self.graph.tensors) - 1

    def constant(self, values: Any, dtype: str = "int32") -> int:
        """Adds unquantized numbers."""
        data = np.asarray(values, dtype)
        return self.tensor(data.shape, dtype, data=data)

    def op(self, kind: str, inputs: list[int], outputs: list[int], options: str | None = None, **values: Any) -> int:
        """Adds an operator; options by the name of their table. Gives the first output."""
        number = getattr(schema.BuiltinOperator, kind)
        code = schema.OperatorCodeT()
        code.builtinCode = number
        code.deprecatedBuiltinCode = min(number, 127)
        first = ("HARD_SWISH", "PRELU", "RESHAPE", "SQUEEZE", "EXPAND_DIMS", "DEPTH_TO_SPACE")
        code.version = 1 if kind in first else {"FULLY_CONNECTED": 4, "CONV_2D": 3}.get(kind, 2)
        self.model.operatorCodes.append(code)
        op = schema.OperatorT()
        op.opcodeIndex = len(self.model.operatorCodes) - 1
        op.inputs, op.outputs = inputs, outputs
        if options:
            op.builtinOptionsType = getattr(schema.BuiltinOptions, options)
            op.builtinOptions = getattr(schema, options + "T")()
            for key, value in values.items():
                assert hasattr(op.builtinOptions, key), key
                setattr(op.builtinOptions, key, value)
        self.graph.operators.append(op)
        return outputs[0]

    def file(self, inputs: list[int], outputs: list[int]) -> bytes:
        """The finished file."""
        self.graph.inputs, self.graph.outputs = inputs, outputs
        return pack(self.model)


def litert(file: bytes, feeds: dict[str, Array], resolver: OpResolverType) -> dict[str, Array]:
    """Every tensor that LiteRT computes or reads, by name; with a delegate, only inputs and outputs."""
    preserve = resolver != OpResolverType.AUTO
    interpreter = Interpreter(
        model_content=file, experimental_op_resolver_type=resolver, experimental_preserve_all_tensors=preserve
    )
    interpreter.allocate_tensors()
    for detail in interpreter.get_input_details():
        interpreter.set_tensor(detail["index"], feeds[detail["name"]])
    interpreter.invoke()
    details = interpreter.get_tensor_details() if preserve else interpreter.get_output_details()
    out = {}
    for detail in details:
        # Tensors that no operator touches have no memory.
        with contextlib.suppress(ValueError):
            out[detail["name"]] = interpreter.get_tensor(detail["index"])
    return out
