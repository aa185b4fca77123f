"""ONNX file, bytes or ModelProto -> `Source`: a checked graph and its weights, kept apart.

The weights leave the proto at once, so every later step works on a graph of a few hundred KB, and
models above protobuf's 2 GB limit take the same way as small ones.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from onnx import ModelProto

from tvmext.errors import ModelError

from . import tensors

if TYPE_CHECKING:
    import numpy as np

MAX_PROTO_BYTES = (1 << 31) - 1


@dataclass(frozen=True)
class Source:
    """A model as loaded: `model` without initializers, `constants` by name, `name` for messages."""

    model: ModelProto
    constants: dict[str, np.ndarray]
    name: str


def load(model: str | Path | bytes | ModelProto, name: str = "") -> Source:
    """Read a model and take its weights out; the argument is not changed.

    `name` is what messages call it: by default the path, or the type of the object.
    Raises ModelError if the file cannot be read, is no ONNX model, or a weight is damaged.
    """
    if isinstance(model, ModelProto):
        return _detach(model, name or "ModelProto", None)
    if isinstance(model, bytes):
        name = name or "bytes"
        return _detach(_parse(model, name), name, None)
    path, name = Path(model), name or str(model)
    return _detach(_parse(_read(path, name), name), name, path.parent)


def _read(path: Path, name: str) -> bytes:
    try:
        size = path.stat().st_size
        if size > MAX_PROTO_BYTES:
            raise ModelError(
                f"'{name}' has {size} bytes; an ONNX file can have at most {MAX_PROTO_BYTES}",
                hint="store the weights as external data: onnx.save(..., save_as_external_data)",
            )
        return path.read_bytes()
    except OSError as error:
        raise ModelError(
            f"cannot read '{name}': {error.strerror}", hint="check the path"
        ) from error


def _parse(data: bytes, name: str) -> ModelProto:
    model = ModelProto()
    try:
        model.ParseFromString(data)
    except DecodeError as error:
        if data.startswith(b"\x7fELF"):
            raise ModelError(
                f"'{name}' is a library, not a model",
                hint="the model that it was compiled from; tvmext run and inspect take libraries",
            ) from error
        raise ModelError(
            f"'{name}' is not an ONNX model: {len(data)} bytes that protobuf cannot decode",
            hint="the file is truncated or of another format; download or export it again",
        ) from error
    return model


def _detach(model: ModelProto, name: str, folder: Path | None) -> Source:
    """Split `model` into a copy without the main graph's initializers and these as arrays."""
    constants: dict[str, np.ndarray] = {}
    for tensor in model.graph.initializer:
        if not tensor.name or tensor.name in constants:
            what = f"two initializers named '{tensor.name}'" if tensor.name else "a nameless one"
            raise ModelError(f"'{name}' has {what} among its initializers", hint="export it again")
        where = f"initializer '{tensor.name}' of '{name}'"
        constants[tensor.name] = tensors.to_array(tensor, where, folder)
    for sparse in model.graph.sparse_initializer:
        where = f"sparse initializer '{sparse.values.name}' of '{name}'"
        constants[sparse.values.name] = tensors.sparse_to_array(sparse, where)
    return Source(_without_initializers(model), constants, name)


def _without_initializers(model: ModelProto) -> ModelProto:
    light = ModelProto(ir_version=model.ir_version)
    light.opset_import.extend(model.opset_import)
    light.functions.extend(model.functions)
    graph = model.graph
    light.graph.name = "main"
    for field in ("node", "input", "output", "value_info"):
        getattr(light.graph, field).extend(getattr(graph, field))
    return light
