"""Neighbours at once: what CUDA's vectors hold, and which functions vector code may call.

Of vectors of more than 4 elements TVM's CUDA code generator can do no more than read, write and
choose a whole one: there are none of truth values, and none of 8 float32 made from one. What is
between is computed element by element, as it would be anyway.

TVM's list of functions lacks some that its code generator takes. A call that is not on the list is
taken apart lane by lane, and a scalar bound to it (`tirx.Bind`) is then lost.

Truth values have no vectors in memory: there they are bytes, and TVM reads and writes 16 bits for
each lane.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import tvm
import tvm_ffi
from tvm import tirx
from tvm.ir import Call, Expr, Op, TensorLoad, Var

from ..kernel.analysis import buffer_of, collect, substitute, variables
from ..kernel.emit import UNROLLED, VECTORIZED, allocate, block, loop
from ..kernel.stages import Stage

MOST_COMPUTED = 4
"""Lanes of a vector that is computed with (TVM's codegen_cuda.cc, PrintType)."""
_KEY = "TVectorizable"
_MORE = ("tirx.erf", "tirx.atan", "tirx.rsqrt", "tirx.fmod")
"""Lowered to a function of CUDA's, which the code generator calls for each lane."""
_HANDLED = ("prim.if_then_else", "tirx.if_then_else", "tirx.reinterpret", "prim.reinterpret")


def is_bool(access: Any) -> bool:
    """Whether a load or a store is of truth values."""
    return str(buffer_of(access).ty.dtype) == "bool"


def neighbours(lanes: int, body: Callable[[Expr], tirx.Stmt], name: str = "v") -> tirx.Stmt:
    """``body(v)`` for `lanes` neighbours: accesses are vectors, and what is between, if it can be.

    Every access that moves with v moves by one element.
    """
    v = Var(name, "int64")
    stmt = body(v)
    stores = collect(stmt, tirx.BufferStore)
    if lanes <= MOST_COMPUTED or all(_is_read(store.value, v) for store in stores):
        return loop(lanes, body, VECTORIZED, name)
    if any(_is_branch(call) and not _is_read(call, v) for call in collect(stmt, Call)):
        # Nothing may be read outside of its branch.
        few = MOST_COMPUTED
        return loop(
            lanes // few,
            lambda u: loop(few, lambda w: body(u * few + w), VECTORIZED, name),
            UNROLLED,
        )
    buffers: list[Var] = []
    reads: list[tirx.Stmt] = []
    writes: list[tirx.Stmt] = []
    held: dict[Any, Expr] = {}

    def own(dtype: str, name: str) -> Expr:
        buffers.append(allocate([lanes], dtype, name, "local"))
        return buffers[-1][v]

    def each(one: tirx.Stmt) -> tirx.Stmt:
        return loop(lanes, lambda lane: substitute(one, {v: lane}), VECTORIZED, name)

    def read(expr: Expr) -> Expr:
        if not _is_read(expr, v) or not _moves(expr, v):
            return expr
        key = tvm_ffi.StructuralKey(expr)
        if key not in held:
            held[key] = own(str(expr.ty.dtype), "read")
            reads.append(each(tirx.BufferStore(held[key].source, expr, [v])))
        return held[key]

    def write(old: tirx.BufferStore) -> tirx.Stmt:
        if old.buffer.scope() == "local":
            return old
        kept = own(str(old.buffer.ty.dtype), f"{old.buffer.name}_write")
        writes.append(each(tirx.BufferStore(old.buffer, kept, list(old.indices))))
        return tirx.BufferStore(kept.source, old.value, [v])

    inside = tvm_ffi.structural_map(stmt, ((Call, TensorLoad), read), order="pre")
    inside = tvm_ffi.structural_map(inside, (tirx.BufferStore, write))
    chosen = loop(lanes, lambda lane: substitute(inside, {v: lane}), UNROLLED, name)
    return block(*map(tirx.AllocBuffer, buffers), *reads, chosen, *writes)


def _is_read(expr: Expr, v: Var) -> bool:
    """Whether `expr` is a load, or a branch between such and constants, the same for all v."""
    if _is_branch(expr):
        condition, *branches = expr.args
        return v not in variables(condition) and all(_is_read(one, v) for one in branches)
    return isinstance(expr, TensorLoad | tirx.FloatImm | tirx.IntImm)


def _is_branch(expr: Expr) -> bool:
    return isinstance(expr, Call) and getattr(expr.op, "name", "") == "prim.if_then_else"


def _moves(expr: Expr, v: Var) -> bool:
    """Whether `expr` reads neighbours in memory."""
    loads = collect(expr, TensorLoad)
    return any(v in variables(list(x.indices)) and x.source.scope() != "local" for x in loads)


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
