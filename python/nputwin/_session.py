"""`Session`: a model under a target, with onnxruntime's calling convention."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from nputwin import _native
from nputwin._results import Dumped, Explanation, Node, Note, Port, Report, Target
from nputwin.errors import invalid

__all__ = ["Session", "targets"]


@runtime_checkable
class Serializable(Protocol):
    """A protobuf message such as `onnx.ModelProto`."""

    def SerializeToString(self) -> bytes:  # noqa: N802
        """The bytes of the message."""


Model = str | os.PathLike[str] | bytes | Serializable
Encodings = str | os.PathLike[str] | Mapping[str, Any]
Feeds = Mapping[str, npt.ArrayLike]


def model_argument(model: Model) -> str | bytes:
    """A path, or the bytes of a model."""
    if isinstance(model, bytes | str):
        return model
    if isinstance(model, os.PathLike):
        return os.fspath(model)
    if isinstance(model, Serializable):
        return model.SerializeToString()
    raise invalid("model_type", f"a model cannot be a {type(model).__name__}", "pass a path, bytes or a ModelProto")


def encodings_argument(encodings: Encodings | None) -> str | bytes | None:
    """A path, or the text of an encodings file."""
    if encodings is None or isinstance(encodings, str):
        return encodings
    if isinstance(encodings, os.PathLike):
        return os.fspath(encodings)
    if isinstance(encodings, Mapping):
        try:
            return json.dumps(encodings).encode()
        except (TypeError, ValueError) as error:
            raise invalid("encodings_json", f"the encodings cannot be written as JSON: {error}") from error
    raise invalid("encodings_type", f"encodings cannot be a {type(encodings).__name__}", "pass a path or a dictionary")


def feeds_argument(feeds: Feeds) -> dict[str, npt.NDArray[Any]]:
    """Arrays by input name."""
    return {name: np.asarray(value) for name, value in feeds.items()}


class Session:
    """A model and a target, ready to run.

    Runs are deterministic: the same bits for every number of threads, every instruction set and every split of a batch.
    They release the interpreter lock, and Ctrl-C stops them. A session may be used by several threads at once.

    Args:
        model: Path of an ONNX or TFLite file, its bytes, or an `onnx.ModelProto`. External data is found beside a path
            only.
        target: Name of a shipped target (see `targets()`) or path of a spec file.
        encodings: Path of an `.encodings` file (0.6.1, 1.0.0, 2.0.0 or 2.1.0), or its contents as a dictionary; needed
            where the model itself has no quantization.
        threads: Threads of a run; 0 for as many as the machine has. Preparing the model takes at least two, where the
            machine has them.
        max_memory: Bytes that the values of a run may take; None for half of what the machine has available.
        strict: Refuse models that use rules which are only assumed.
        assume: Alternatives to choose among a rule's hypotheses, such as `{"Add.rule": "A1"}`.
        allow_unmatched: Accept encodings that name no tensor of the model.

    Raises:
        InvalidError: The model, the encodings or an option is wrong.
        FileError: A file cannot be read.
        UnsupportedError: nputwin cannot import the model.

    Example:
        >>> session = Session("model.onnx", target="htp_v75", encodings="model.encodings")
        >>> (y,) = session.run(None, {"x": np.zeros((1, 3, 224, 224), np.float32)})
    """

    def __init__(
        self,
        model: Model,
        *,
        target: str | os.PathLike[str],
        encodings: Encodings | None = None,
        threads: int = 0,
        max_memory: int | None = None,
        strict: bool = False,
        assume: Mapping[str, str] | None = None,
        allow_unmatched: bool = False,
    ) -> None:
        self._native = _native.Session(
            model_argument(model),
            os.fspath(target),
            encodings=encodings_argument(encodings),
            threads=threads,
            max_memory=max_memory,
            strict=strict,
            assume=list(assume.items()) if assume else None,
            allow_unmatched=allow_unmatched,
        )

    @classmethod
    def _of(cls, native: _native.Session) -> Session:
        """A session around one that the compiled module made."""
        session = cls.__new__(cls)
        session._native = native
        return session

    @property
    def target(self) -> str:
        """Name of the target."""
        return self._native.target[0]

    @property
    def target_hash(self) -> str:
        """SHA-256 over the target's rules, assumptions included."""
        return self._native.target[1]

    @property
    def threads(self) -> int:
        """Threads that runs use."""
        return self._native.threads

    def get_inputs(self) -> list[Port]:
        """Inputs in order, each with `.name`, `.shape`, `.type` and `.encoding`."""
        return [Port(**port) for port in self._native.inputs()]

    def get_outputs(self) -> list[Port]:
        """Outputs in order, as `get_inputs`."""
        return [Port(**port) for port in self._native.outputs()]

    def run(self, output_names: Sequence[str] | None, feeds: Feeds) -> list[npt.NDArray[Any]]:
        """Runs the model.

        Args:
            output_names: Outputs to return, in this order; None for all of them.
            feeds: An array per input, of the input's type and shape. Dimensions that the model leaves open, the batch
                among them, may have any size.

        Returns:
            One array per output: reals, also where the target computes integers.

        Raises:
            InvalidError: A name, type or shape is wrong.
            UnsupportedError: An operator is not implemented.
            TargetUnsupportedError: The target has no kernel for an operator.
            UnspecifiedError: No public source says how the target computes an operator.
        """
        return self._chosen(output_names, lambda: self._native.run(feeds_argument(feeds)))

    def run_quantized(self, output_names: Sequence[str] | None, feeds: Feeds) -> list[npt.NDArray[Any]]:
        """Runs the model on integers.

        Args:
            output_names: As `run`.
            feeds: Codes of the type `encoding.dtype` for each input that has an encoding; other inputs as `run`.

        Returns:
            Codes for each output that has an encoding, reals for the others.

        Raises:
            InvalidError: Also where a code lies outside its grid.
        """
        return self._chosen(output_names, lambda: self._native.run_quantized(feeds_argument(feeds)))

    def _chosen(self, output_names: Sequence[str] | None, run: Any) -> list[npt.NDArray[Any]]:
        if output_names is None:
            return [array for _, array in run()]
        if isinstance(output_names, str):
            raise invalid("output_names", "output names are a list, not a string", f"pass ['{output_names}']")
        known = [port.name for port in self.get_outputs()]
        unknown = [name for name in output_names if name not in known]
        if unknown:
            raise invalid("output_unknown", f"the model has no output '{unknown[0]}'", f"outputs: {', '.join(known)}")
        arrays = dict(run())
        return [arrays[name] for name in output_names]

    def dump(self, feeds: Feeds) -> dict[str, Dumped]:
        """Runs the model and keeps every tensor.

        Args:
            feeds: As `run`.

        Returns:
            Tensors by name, in graph order; aliases are fields of the values.
        """
        return {tensor["name"]: Dumped(**tensor) for tensor in self._native.dump(feeds_argument(feeds))}

    def explain(self, tensor: str, index: int | Sequence[int], feeds: Feeds) -> Explanation:
        """How one element of a tensor came about: operands and steps, to its code where the tensor has codes.

        Args:
            tensor: Name of a tensor that a kernel computes.
            index: Flat index in row-major order, or one index per axis.
            feeds: As `run`.

        Raises:
            InvalidError: The tensor or the element does not exist.
            UnsupportedError: No kernel computes the tensor: it is an input of the model.
        """
        arrays = feeds_argument(feeds)
        if not isinstance(index, int):
            shapes = {t["name"]: t["value"].shape for t in self._native.dump(arrays)}
            if tensor not in shapes:
                raise invalid("tensor_unknown", f"the model has no tensor '{tensor}'")
            place = tuple(index)
            try:
                index = int(np.ravel_multi_index(place, shapes[tensor]))
            except ValueError as error:
                raise invalid("explain_index", f"element {place} of shape {shapes[tensor]}") from error
        if index < 0:
            raise invalid("explain_index", f"element {index} does not exist")
        explained = json.loads(self._native.explain(arrays, tensor, index))
        node = explained["node"]
        return Explanation(
            target=explained["target"],
            tensor=explained["tensor"],
            index=explained["index"],
            node=(node[0], node[1]) if node else None,
            operands=[(name, value) for name, value in explained["operands"]],
            trace=explained["trace"],
        )

    def report(self, shapes: Sequence[Sequence[int]] | None = None) -> Report:
        """How each node runs, and what that rests on.

        Args:
            shapes: Shapes of the inputs; None for the declared ones, with 1 for open dimensions.
        """
        report = self._native.report(None if shapes is None else [list(shape) for shape in shapes])
        return Report(
            nodes=[Node(**node) for node in report["nodes"]],
            notes=[Note(place, text) for place, text in report["notes"]],
            status=report["status"],
        )

    def __repr__(self) -> str:
        inputs = ", ".join(port.name for port in self.get_inputs())
        return f"<nputwin.Session of ({inputs}) under {self.target}>"


def targets() -> list[Target]:
    """The shipped targets."""
    return [Target(**target) for target in _native.targets()]
