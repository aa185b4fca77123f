"""PyTorch in: a program of ``torch.export`` becomes a Relax module, by TVM's importer.

torch calls its dims s77. Here a dim has the name of the first input and axis whose size it is,
"x_0", as in ONNX models that do not name theirs, and the range that the program was exported with.
A lower limit of 2 is none: torch.export writes it where nothing was said, and its programs take 0
and 1 as well.
"""

from __future__ import annotations

import warnings
from typing import Any

import tvm
from tvm import relax, tirx

from tvmext.errors import ModelError, UnsupportedError, UnsupportedOp

from .relax import LOWER, UPPER

UNSAID = 2
"""What torch.export writes as the lower limit of a dim where its user said none."""


def module_of(program: Any) -> tvm.IRModule:
    """The module of an exported program; its weights are the attribute ``params`` of main.

    Raises UnsupportedError for operators that TVM's importer lacks, all of them at once, and
    ModelError for programs that it fails on.
    """
    from tvm.relax.frontend.torch import from_exported_program

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of torch's own trees
        try:
            program = program.run_decompositions()
            _check_operators(program)
            mod = from_exported_program(
                program,
                keep_params_as_input=True,
                unwrap_unit_return_tuple=True,
                run_ep_decomposition=False,
            )
        except UnsupportedError:
            raise
        except Exception as error:  # torch and converters raise what they like
            reason = str(error).strip().splitlines()[-1:] or [type(error).__name__]
            raise ModelError(
                f"TVM cannot import this exported program: {reason[0]}",
                hint="torch.onnx.export(..., dynamo=True) and its file may do instead",
            ) from error
    return _named_dims(mod)


def _check_operators(program: Any) -> None:
    from tvm.relax.frontend.torch.exported_program_translator import ExportedProgramImporter

    known = ExportedProgramImporter().create_convert_map()
    calls = {n.target for n in program.graph.nodes if n.op == "call_function"}
    missing = [call for call in calls if call.__name__ not in known]
    if missing:
        raise UnsupportedError([_operator(program, call) for call in sorted(missing, key=str)])


def _operator(program: Any, call: Any) -> UnsupportedOp:
    """An operator as it is called first, "aten.foo.default" of domain "torch"."""
    node = next(n for n in program.graph.nodes if n.target is call)
    return UnsupportedOp(call.__name__, "torch", 0, "", f"called as '{node.name}'")


def _named_dims(mod: tvm.IRModule) -> tvm.IRModule:
    """The same module, whose dims are called after the input and axis where they stand first."""
    main = mod["main"]
    names: dict[str, str] = {}
    for param in main.params:
        for axis, size in enumerate(param.ty.shape or []):
            if isinstance(size, tirx.Var):
                names.setdefault(size.name, f"{param.name}_{axis}")
    ranges = {
        attribute: {
            names[old]: int(limit)
            for old, limit in (main.attrs.get(attribute) or {}).items()
            if old in names and (attribute == UPPER or int(limit) != UNSAID)
        }
        for attribute in (LOWER, UPPER)
    }
    renamed = {old: tirx.Var(new, "int64") for old, new in names.items()}
    if renamed:
        mod = relax.transform.BindSymbolicVars(renamed)(mod)
    mod = tvm.IRModule(mod.functions, attrs=mod.attrs, global_infos=mod.global_infos)
    mod["main"] = mod["main"].with_attrs(ranges)
    return mod
