"""Which functions vector code may call. TVM's list lacks some that its CUDA code generator takes.

A call that is not on the list is taken apart lane by lane, and a scalar bound to it (`tirx.Bind`)
is then lost.

Truth values have no vectors in memory: there they are bytes, and TVM's CUDA code generator reads
and writes 16 bits for each lane. It knows no more than 4 of them: what chooses among more
neighbours reads and writes them as vectors, and chooses one by one between.
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

MOST_TRUTHS = 4
"""Lanes of a vector of truth values (TVM's codegen_cuda.cc, PrintType)."""
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
    if lanes <= MOST_TRUTHS or not _chooses(stmt):
        return loop(lanes, body, VECTORIZED, name)
    # What stands under a condition may only be read there.
    open_part = tvm_ffi.structural_map(stmt, (Call, _without_branches))
    buffers: list[Var] = []
    reads: list[tirx.Stmt] = []
    writes: list[tirx.Stmt] = []
    held: dict[Any, Expr] = {}

    def own(dtype: str, name: str) -> Expr:
        buffers.append(allocate([lanes], dtype, name, "local"))
        return buffers[-1][v]

    def each(one: tirx.Stmt) -> tirx.Stmt:
        return loop(lanes, lambda lane: substitute(one, {v: lane}), VECTORIZED, name)

    for load in collect(open_part, TensorLoad):
        key = load.source, tvm_ffi.StructuralKey(tuple(load.indices))
        moves = v in variables(list(load.indices)) and load.source.scope() != "local"
        if moves and key not in held:
            held[key] = own(str(load.source.ty.dtype), f"{load.source.name}_read")
            reads.append(each(tirx.BufferStore(held[key].source, load, [v])))

    def read(load: TensorLoad) -> Expr:
        return held.get((load.source, tvm_ffi.StructuralKey(tuple(load.indices))), load)

    def write(old: tirx.BufferStore) -> tirx.Stmt:
        if old.buffer.scope() == "local":
            return old
        kept = own(str(old.buffer.ty.dtype), f"{old.buffer.name}_write")
        writes.append(each(tirx.BufferStore(old.buffer, kept, list(old.indices))))
        return tirx.BufferStore(kept.source, old.value, [v])

    inside = tvm_ffi.structural_map(stmt, (TensorLoad, read))
    inside = tvm_ffi.structural_map(inside, (tirx.BufferStore, write))
    chosen = loop(lanes, lambda lane: substitute(inside, {v: lane}), UNROLLED, name)
    return block(*map(tirx.AllocBuffer, buffers), *reads, chosen, *writes)


def _chooses(stmt: tirx.Stmt) -> bool:
    """Whether truth values are computed, other than in indices and for branches."""
    plain = tvm_ffi.structural_map(stmt, (Call, _without_branches))
    stored = [store.value for store in collect(plain, tirx.BufferStore)]
    values = [*stored, *(bind.value for bind in collect(plain, tirx.Bind))]
    bare = [
        tvm_ffi.structural_map(
            value, (TensorLoad, lambda load: tirx.const(0, str(load.source.ty.dtype)))
        )
        for value in values
    ]
    casts = [cast.value for cast in collect(bare, tirx.Cast)]
    return bool(collect(bare, tirx.Select)) or any(
        str(one.ty.dtype) == "bool" for one in (*casts, *values)
    )


def _without_branches(call: Call) -> Expr:
    if isinstance(call.op, Op) and call.op.name.endswith("if_then_else"):
        return tirx.const(0, str(call.ty.dtype))
    return call


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
