"""Operators of which TVM made no kernel, because it cannot tell the shape of the result.

Two dims that are equal in every run of which anything is known, but not by their names, do not
broadcast for TVM. Whatever made such a network, this is its error, and not one of code generation.
"""

from __future__ import annotations

import tvm
import tvm_ffi
from tvm import relax
from tvm.ir import Op

from tvmext.errors import UnsupportedError, UnsupportedOp

HINT = "give the dims of inputs that have to be equal one name, or bind them with --dim NAME=SIZE"


def refuse_unlegalized(mod: tvm.IRModule) -> None:
    """Raises UnsupportedError that lists the operators that are left in a lowered module."""
    found: list[UnsupportedOp] = []

    def visit(call: relax.Call) -> None:
        if isinstance(call.op, Op) and call.op.get_attr("FLegalize") is not None:
            name = call.op.name.removeprefix("relax.").removeprefix("nn.")
            types = ", ".join(str(arg.ty) for arg in call.args)
            reason = f"the shape of its result is not known, of {types}"
            found.append(UnsupportedOp(name, "", 0, "", reason))

    for function in mod.functions.values():
        if isinstance(function, relax.Function):
            tvm_ffi.structural_walk(function, (relax.Call, visit))
    if found:
        raise UnsupportedError(found, hint=HINT)
