"""Relax in: an IRModule in memory, its JSON, or a TVMScript file.

JSON is data: reading it runs no code. TVMScript is Python and runs when it is read, so a file needs
the caller's explicit trust.
"""

from __future__ import annotations

import runpy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tvm
from tvm import relax, tirx

from tvmext.errors import ModelError, OptionError

from .dims import Dim, DimSpec, Expr, bind_dims, maximum, minimum, symbol
from .model import Model, TensorSpec

LOWER, UPPER = "tir_var_lower_bound", "tir_var_upper_bound"
"""Attributes of main with the ranges of its dims, {name: limit} (TVM's own convention)."""


def save(mod: tvm.IRModule, params: Mapping[str, Any], path: Path) -> Path:
    """Write a module and its weights as JSON that `from_json` reads; returns the path.

    The weights travel as the attribute ``params`` of main.
    """
    model = from_module(mod, params, None, "IRModule")
    if model.params:
        tensors = [tvm.runtime.tensor(np.ascontiguousarray(a)) for a in model.params.values()]
        model.mod["main"] = model.mod["main"].with_attr("params", tensors)
    path.write_text(tvm.ir.save_json(model.mod), encoding="utf-8")
    return path


def from_json(path: Path, dims: Mapping[str, DimSpec] | None, name: str) -> Model:
    """A module saved with `save` or `tvm.ir.save_json`; ModelError if the file is not one.

    `name` is what messages call the file.
    """
    try:
        module = tvm.ir.load_json(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ModelError(
            f"cannot read '{name}': {error.strerror}", hint="check the path"
        ) from error
    except Exception as error:  # bad text, bad JSON, unknown nodes: each has an error of its own
        raise ModelError(
            f"'{name}' is not the JSON of a Relax module", hint="write it with tvm.ir.save_json"
        ) from error
    if not isinstance(module, tvm.IRModule):
        raise ModelError(f"'{name}' holds a {type(module).__name__}, not an IRModule")
    return from_module(module, {}, dims, name)


def from_script(path: Path, dims: Mapping[str, DimSpec] | None, trust: bool, name: str) -> Model:
    """The IRModule that a TVMScript file defines; the file is run, as any Python program."""
    if not trust:
        raise OptionError(
            f"'{name}' is a Python program and would be run",
            hint="trust=True or --trust if you know where it comes from",
        )
    try:
        defined = runpy.run_path(str(path))
    except OSError as error:
        raise ModelError(
            f"cannot read '{name}': {error.strerror}", hint="check the path"
        ) from error
    except (Exception, SystemExit) as error:  # a program may raise anything
        raise ModelError(f"'{name}' failed: {type(error).__name__}: {error}") from error
    modules = [value for value in defined.values() if isinstance(value, tvm.IRModule)]
    if len(modules) != 1:
        raise ModelError(
            f"'{name}' defines {len(modules)} modules", hint="define exactly one @I.ir_module"
        )
    return from_module(modules[0], {}, dims, name)


def from_module(
    mod: tvm.IRModule, params: Mapping[str, Any], dims: Mapping[str, DimSpec] | None, source: str
) -> Model:
    """A Relax module whose function `main` takes and returns tensors; `mod` is not changed.

    `params` gives arrays for parameters of main by name; they must be the last ones. Without it the
    attribute ``params`` of main, if any, is taken.
    """
    main = _main(mod, source)
    arrays = _arrays(main, params, source)
    count = len(main.params) - len(arrays)
    known = _dims(main, source)
    sizes, free = bind_dims(dims, known)
    if sizes:
        mod = relax.transform.BindSymbolicVars(sizes)(mod)
        main = mod["main"]
    mod = tvm.IRModule(mod.functions, attrs=mod.attrs, global_infos=mod.global_infos)
    mod["main"] = main.without_attr("params").with_attr("num_input", count)
    return Model(
        mod=mod,
        params=arrays,
        inputs=tuple(
            _spec(var.name, var.ty, f"input '{var.name}' of '{source}'")
            for var in main.params[:count]
        ),
        outputs=_outputs(main, source),
        dims=free,
        source=source,
    )


def _main(mod: tvm.IRModule, source: str) -> relax.Function:
    names = {var.name_hint for var in mod.functions}
    if "main" not in names or not isinstance(mod["main"], relax.Function):
        raise ModelError(
            f"'{source}' has no Relax function 'main'", hint=f"it has {', '.join(sorted(names))}"
        )
    try:
        relax.analysis.well_formed(mod)
    except Exception as error:  # TVM raises a different class for each rule
        reason = str(error).strip().splitlines()[-1]
        raise ModelError(
            f"'{source}' is not a well-formed module: {reason}",
            hint="tvm.relax.analysis.well_formed(mod) shows where",
        ) from error
    return mod["main"]


def _arrays(main: relax.Function, params: Mapping[str, Any], source: str) -> dict[str, np.ndarray]:
    """{name: array} of the parameters that are weights, in the order of main."""
    given = {name: _numpy(array) for name, array in params.items()}
    attrs = main.attrs or {}
    if not given and "num_input" in attrs and "params" in attrs:
        tail = main.params[int(attrs["num_input"]) :]
        given = {var.name: _numpy(array) for var, array in zip(tail, attrs["params"])}
    names = [var.name for var in main.params]
    tail_names = names[len(names) - len(given) :]
    if sorted(given) != sorted(tail_names):
        raise ModelError(
            f"'{source}': params {sorted(given)} are not the last parameters of main, {names}",
            hint="inputs first, then the weights",
        )
    for var in main.params[len(names) - len(given) :]:
        _check_array(var, given[var.name], source)
    return {name: given[name] for name in tail_names}


def _numpy(array: Any) -> np.ndarray:
    return array.numpy() if hasattr(array, "numpy") else np.asarray(array)


def _check_array(var: relax.Var, array: np.ndarray, source: str) -> None:
    spec = _spec(var.name, var.ty, f"parameter '{var.name}' of '{source}'")
    if spec.shape != array.shape or spec.dtype != str(array.dtype):
        raise ModelError(
            f"'{source}': parameter '{var.name}' is {array.dtype}{list(array.shape)}, not {spec}"
        )


def _dims(main: relax.Function, source: str) -> dict[str, Dim]:
    """The symbolic dims, with the ranges that main declares."""
    attrs = main.attrs or {}
    low, high = attrs.get(LOWER) or {}, attrs.get(UPPER) or {}
    return {
        name: Dim(name, int(low.get(name, 0)), int(high[name]) if name in high else None)
        for name in _symbols(main, source)
    }


def _symbols(main: relax.Function, source: str) -> list[str]:
    """Names of the symbolic dims; two variables of one name are an error."""
    names = [var.name for var in relax.analysis.defined_symbolic_vars(main)]
    for name in names:
        if names.count(name) > 1:
            raise ModelError(
                f"'{source}' has two dims named '{name}'", hint="give each its own name"
            )
    return names


def _outputs(main: relax.Function, source: str) -> tuple[TensorSpec, ...]:
    result = main.ret_ty
    fields = list(result.fields) if isinstance(result, relax.TupleType) else [result]
    return tuple(
        _spec(
            f"output_{index}" if len(fields) > 1 else "output",
            field,
            f"output {index} of '{source}'",
        )
        for index, field in enumerate(fields)
    )


def _spec(name: str, kind: Any, where: str) -> TensorSpec:
    if not isinstance(kind, relax.TensorType) or kind.shape is None:
        raise ModelError(f"{where} is {kind}, not a tensor of known rank and dims")
    if not isinstance(kind.shape, relax.ShapeExpr):
        raise ModelError(f"{where} has a shape that is a variable", hint="write its dims out")
    return TensorSpec(
        name, str(kind.dtype), tuple(_dim(value, where) for value in kind.shape.values)
    )


def _dim(value: Any, where: str) -> int | Expr:
    """A TVM expression as a dim."""
    match value:
        case tirx.IntImm():
            return int(value.value)
        case tirx.Var():
            return symbol(value.name)
    operands = [_dim(getattr(value, side), where) for side in ("a", "b") if hasattr(value, side)]
    combine = _OPERATORS.get(type(value).__name__)
    if combine is None or len(operands) != 2:
        raise ModelError(f"{where} has the dim {value}", hint="use + - * // % min and max")
    return combine(*operands)


_OPERATORS: dict[str, Any] = {
    "Add": lambda a, b: a + b,
    "Sub": lambda a, b: a - b,
    "Mul": lambda a, b: a * b,
    "FloorDiv": lambda a, b: a // b,
    "FloorMod": lambda a, b: a % b,
    "Min": minimum,
    "Max": maximum,
}
