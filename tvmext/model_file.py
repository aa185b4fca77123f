"""A model in memory becomes a file, because the compilation runs in another process."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .arch import target_fields
from .build import CompileRequest
from .errors import ModelError
from .frontends.dims import DimSpec
from .options import Options


@contextmanager
def request_for(
    model: Any,
    target: Any = "llvm",
    dims: Mapping[str, DimSpec] | None = None,
    options: Options | None = None,
    trust: bool = False,
    model_format: str | None = None,
    asked: Mapping[str, Any] | None = None,
) -> Iterator[CompileRequest]:
    """A request, as `tvmext.compile` is called, whose files live as long as the context."""
    with tempfile.TemporaryDirectory(prefix="tvmext-") as folder, model_file(model) as (path, name):
        yield CompileRequest(
            model=str(path),
            output=str(Path(folder) / "model.so"),
            target=target if isinstance(target, str) else target_fields(target),
            dims=dict(dims or {}),
            options=options or Options(),
            trust=trust,
            model_format=model_format,
            name=name,
            asked=dict(asked or {}),
        )


@contextmanager
def model_file(model: Any) -> Iterator[tuple[Path, str]]:
    """Yields (path, name for messages) of `model`, which is a path or a model in memory.

    What is in memory goes to a private folder that is gone after the block. Raises ModelError for
    objects that are not models.
    """
    if isinstance(model, str | os.PathLike):
        yield Path(model).absolute(), os.fspath(model)
        return
    with tempfile.TemporaryDirectory(prefix="tvmext-") as folder:
        yield _write(model, Path(folder)), type(model).__name__


def _write(model: Any, folder: Path) -> Path:
    if isinstance(model, bytes | bytearray | memoryview):
        path = folder / "model.onnx"
        path.write_bytes(model)
        return path
    # Modules that nobody has imported cannot have made the object.
    onnx, tvm = sys.modules.get("onnx"), sys.modules.get("tvm")
    if onnx and isinstance(model, onnx.ModelProto):
        path = folder / "model.onnx"
        onnx.save(model, path)
        return path
    torch = sys.modules.get("torch.export")
    if torch and isinstance(model, torch.ExportedProgram):
        from .frontends.exported import module_of

        model = module_of(model)
        tvm = sys.modules["tvm"]
    mod, params = model if isinstance(model, tuple) and len(model) == 2 else (model, {})
    if tvm and isinstance(mod, tvm.IRModule):
        from .frontends.relax import save

        return save(mod, params, folder / "model.json")
    raise ModelError(
        f"cannot compile a {type(model).__name__}",
        hint="give a path, the bytes of an ONNX file, an onnx.ModelProto, a "
        "torch.export.ExportedProgram or a tvm.IRModule",
    )
