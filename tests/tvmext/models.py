"""Small compiled libraries, made with TVM's own pipeline: no frontends, no schedules of ours."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import tvm
from tvm import relax

from tvmext.artifact import ArtifactMetadata
from tvmext.build.kernels import Executable, build_module
from tvmext.build.link import link
from tvmext.build.results import results_in_weights
from tvmext.frontends.dims import Dim, Expr, names_of
from tvmext.frontends.model import TensorSpec

LLVM = {"kind": "llvm"}


def silent(step: str, detail: str = "") -> None:
    """A report that nobody reads."""


def spec(name: str, dtype: str, *shape: int | Expr) -> TensorSpec:
    return TensorSpec(name, dtype, shape)


def build(
    inputs: Sequence[TensorSpec],
    outputs: Sequence[TensorSpec],
    body: Callable[..., Any],
    report: Callable[..., None] = silent,
    one_by_one: bool = False,
    **metadata: Any,
) -> Executable:
    """Compile ``body(*inputs)``, which returns one expression or a list of them.

    A dim of a shape is an int or a bare symbol.
    """
    mod = lower(inputs, body)
    dims = {name: Dim(name) for s in inputs for dim in s.shape for name in names_of(dim)}
    results = results_in_weights(mod)
    facts = {
        "target": LLVM,
        "dims": dims,
        "weight_outputs": tuple(outputs[i].name for i in results),
        **metadata,
    }
    text = ArtifactMetadata(tuple(inputs), tuple(outputs), **facts).to_json()
    return build_module(mod, tvm.target.Target(LLVM), text, report, one_by_one=one_by_one)


def lower(inputs: Sequence[TensorSpec], body: Callable[..., Any]) -> tvm.IRModule:
    """The module of ``main(*inputs)``, lowered to calls of the virtual machine."""
    symbols: dict[str, Any] = {}

    def size(dim: int | Expr) -> Any:
        if isinstance(dim, int):
            return dim
        return symbols.setdefault(str(dim), tvm.tirx.Var(str(dim), "int64"))

    params = [
        relax.Var(s.name, relax.TensorType([size(dim) for dim in s.shape], s.dtype)) for s in inputs
    ]
    builder = relax.BlockBuilder()
    with builder.function("main", params):
        with builder.dataflow():
            made = body(*params)
            single = not isinstance(made, list)
            results = [builder.emit_output(builder.emit(x)) for x in ([made] if single else made)]
        builder.emit_func_output(results[0] if single else relax.Tuple(results))
    with tvm.target.Target(LLVM):
        return relax.get_pipeline("default")(builder.get())


def write(path: Path, *args: Any, **kwargs: Any) -> Path:
    """`build`, and link the result to `path`."""
    link(build(*args, **kwargs), path)
    return path
