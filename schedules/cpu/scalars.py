"""Scalars that build on scalars, kept where TVM does not write their definitions out again.

TVM's simplifier, and with it code generation, replaces a bound scalar by its definition wherever
another one builds on it: code where each uses the one before several times, as a chain of
exponentials does, grows exponentially. A scalar that is stored and loaded again is left alone; LLVM
keeps it in a register all the same.
"""

from __future__ import annotations

import tvm_ffi
from tvm import tirx
from tvm.ir import Expr, Var
from tvm.tirx import For, ForKind, SeqStmt, Stmt

from ..kernel.analysis import collect, constant, substitute
from ..kernel.loops import int64, local, sequence

MOST_EXPANDED = 16
"""Uses of scalars up to which a definition may be written out in what builds on it."""

KEPT = ("float32", "float64")
"""Types of the scalars that are kept: of integers, TVM has to know what they are made of."""


def keep_scalars(func: tirx.PrimFunc) -> tirx.PrimFunc:
    """`func` with loops in which no scalar stands for more than `MOST_EXPANDED` others."""
    body = tvm_ffi.structural_map(func.body, (For, _in_loop))
    return tirx.PrimFunc(func.params, body, func.ret_type, func.attrs)


def _in_loop(loop: For) -> Stmt:
    if not isinstance(loop.body, SeqStmt) or not isinstance(loop.body.seq[0], tirx.Bind):
        return loop
    vector = loop.kind == ForKind.VECTORIZED
    lanes = constant(loop.extent) if vector else 1
    assert lanes is not None
    place = loop.loop_var if vector else int64(0)
    kept: list[Var] = []
    known: dict[Var, Expr] = {}
    sizes: dict[Var, int] = {}
    stmts: list[Stmt] = []
    for stmt in loop.body.seq:
        new = substitute(stmt, known) if known else stmt
        if not isinstance(stmt, tirx.Bind):
            stmts.append(new)
            continue
        dtype = str(stmt.value.ty.dtype)
        sizes[stmt.var] = 1 + sum(sizes.get(used, 0) for used in collect(stmt.value, Var))
        if sizes[stmt.var] <= MOST_EXPANDED or dtype not in KEPT:
            stmts.append(new)
            continue
        home = local((lanes,), dtype, stmt.var.name)
        stmts.append(tirx.BufferStore(home, new.value, [place]))
        known[stmt.var], sizes[stmt.var] = home[place], 0
        kept.append(home)
    if not kept:
        return loop
    body = For(
        loop.loop_var,
        loop.min,
        loop.extent,
        loop.kind,
        sequence(stmts),
        loop.thread_binding,
        loop.annotations,
    )
    return sequence([*(tirx.AllocBuffer(home) for home in kept), body])
