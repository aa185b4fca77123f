"""Whom a compiled model is compared with: each loads the model and is then one call."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from tvmext.build import CompileRequest, compile_in_child
from tvmext.errors import ModelError, ToolchainError
from tvmext.runtime import CompiledModel

Run = Callable[[], Mapping[str, np.ndarray]]


def session_of(model: bytes | str, threads: int, profile_to: str = "") -> Any:
    """A session of ONNX Runtime with all its optimizations, on `threads` threads of the CPU.

    With `profile_to`, it writes a profile to that prefix.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    if profile_to:
        options.enable_profiling = True
        options.profile_file_prefix = profile_to
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def onnx_runtime(request: CompileRequest, inputs: Mapping[str, Any], threads: int) -> Run:
    """The model in ONNX Runtime. Raises ToolchainError without it, ModelError if it cannot."""
    if not find_spec("onnxruntime"):
        raise ToolchainError("ONNX Runtime is not installed", hint="pip install 'tvmext[verify]'")
    try:
        session = session_of(request.model, threads)
    except Exception as error:
        raise ModelError(f"ONNX Runtime cannot load the model: {error}") from error
    names = [output.name for output in session.get_outputs()]
    return lambda: dict(zip(names, session.run(names, dict(inputs))))


def stock_tvm(request: CompileRequest, inputs: Mapping[str, Any], threads: int) -> Run:
    """The model as TVM's own passes and default schedules compile it. Raises what they raise."""
    with tempfile.TemporaryDirectory(prefix="tvmext-bench-") as folder:
        library = str(Path(folder) / "stock.so")
        wanted = replace(request, output=library)
        compile_in_child(wanted, entry="tvmext.measure.stock:compile_stock")
        compiled = CompiledModel(library, num_threads=threads)
    return lambda: compiled.run(inputs)


RIVALS: Mapping[str, Callable[[CompileRequest, Mapping[str, Any], int], Run]] = {
    "onnxruntime": onnx_runtime,
    "tvm": stock_tvm,
}
"""By name: what makes the call of a model, given its inputs by name and a number of threads."""
