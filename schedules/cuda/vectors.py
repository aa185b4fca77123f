"""Which functions vector code may call. TVM's list lacks some that its CUDA code generator takes.

A call that is not on the list is taken apart lane by lane, and a scalar bound to it (`tirx.Bind`)
is then lost.

Truth values have no vectors in memory: there they are bytes, and TVM's CUDA code generator reads
and writes 16 bits for each lane.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import tvm
from tvm.ir import Call, Op

from ..kernel.analysis import buffer_of, collect
from ..kernel.stages import Stage

_KEY = "TVectorizable"
_MORE = ("tirx.erf", "tirx.atan", "tirx.rsqrt", "tirx.fmod")
"""Lowered to a function of CUDA's, which the code generator calls for each lane."""
_HANDLED = ("prim.if_then_else", "tirx.if_then_else", "tirx.reinterpret", "prim.reinterpret")


def is_bool(access: Any) -> bool:
    """Whether a load or a store is of truth values."""
    return str(buffer_of(access).ty.dtype) == "bool"


def calls_take_vectors(stage: Stage) -> bool:
    """Whether every call in the code of a stage has a form for vectors."""
    points = [stage.point] + ([stage.epilogue.point] if stage.epilogue else [])
    return all(
        _takes_vectors(call.op)
        for point in points
        for expr in point.exprs()
        for call in collect(expr, Call)
    )


def _takes_vectors(op: Op) -> bool:
    _extend()
    return isinstance(op, Op) and (op.name in _HANDLED or bool(op.get_attr(_KEY)))


@cache
def _extend() -> None:
    """Put what is missing on TVM's list."""
    for name in _MORE:
        if not Op.get(name).get_attr(_KEY):
            tvm.ir.register_op_attr(name, _KEY, True)
