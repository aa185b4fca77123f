"""Models in: ONNX or Relax becomes a `Model`, whatever form it comes in."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tvmext.errors import ModelError

from .dims import DimSpec
from .model import Model

__all__ = ["MODEL_FORMATS", "format_of", "load"]

MODEL_FORMATS = ("onnx", "relax")


def load(
    model: Any,
    dims: Mapping[str, DimSpec] | None = None,
    *,
    trust: bool = False,
    model_format: str | None = None,
    name: str = "",
) -> Model:
    """Read a network.

    `model` is the path of an ``.onnx`` file, a ``.json`` file of Relax or a ``.py`` file of
    TVMScript (run only with ``trust=True``, because it is a program); the bytes of an ONNX file; an
    ``onnx.ModelProto``; a ``torch.export.ExportedProgram``; a ``tvm.IRModule``; or a pair of an
    IRModule and {parameter name: array}.
    `dims` gives sizes or ranges of named dynamic dims; a dim not named may have any size.
    `model_format`, "onnx" or "relax", is for files whose suffix does not say it. `name` is what
    messages call a file, by default its path.

    Raises ModelError for what cannot be read or is not valid, DimError for `dims` that do not fit
    the model, UnsupportedError for operators that cannot be compiled.
    """
    if isinstance(model, str | os.PathLike):
        return _from_path(Path(model), dims, trust, model_format, name or os.fspath(model))
    if isinstance(model, bytes | bytearray | memoryview):
        model = bytes(model)
    if isinstance(model, bytes) or _is_a(model, "ModelProto"):
        from .onnx import load_onnx

        return load_onnx(model, dims)
    if _is_a(model, "ExportedProgram"):
        from .exported import module_of

        model = module_of(model)
    module, params = model if isinstance(model, tuple) and len(model) == 2 else (model, {})
    if _is_a(module, "IRModule"):
        from .relax import from_module

        return from_module(module, params, dims, "IRModule")
    raise ModelError(
        f"cannot read a model from a {type(model).__name__}",
        hint="a path, bytes of an ONNX file, onnx.ModelProto, torch.export.ExportedProgram, "
        "tvm.IRModule or (IRModule, params)",
    )


def _from_path(
    path: Path,
    dims: Mapping[str, DimSpec] | None,
    trust: bool,
    model_format: str | None,
    name: str,
) -> Model:
    if (model_format or format_of(path)) == "onnx":
        from .onnx import load_onnx

        return load_onnx(path, dims, name)
    if path.suffix == ".py":
        from .relax import from_script

        return from_script(path, dims, trust, name)
    from .relax import from_json

    return from_json(path, dims, name)


def format_of(path: Path) -> str:
    """The format that the suffix of a file stands for: one of `MODEL_FORMATS`."""
    return "relax" if path.suffix in (".json", ".py") else "onnx"


def _is_a(value: object, name: str) -> bool:
    """Whether a class of `value` has this name; asks without importing onnx or tvm."""
    return any(kind.__name__ == name for kind in type(value).__mro__)
