"""Scalars that build on scalars, kept where TVM does not write their definitions out again.

TVM's simplifier, and with it code generation, replaces a bound scalar by its definition wherever
another one builds on it: code where each uses the one before several times, as a chain of
exponentials does, grows exponentially. A scalar that is stored and loaded again is left alone; LLVM
keeps it in a register all the same.
"""

from __future__ import annotations

from collections.abc import Sequence

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
    """`func` in which no scalar stands for more than `MOST_EXPANDED` others."""
    body = tvm_ffi.structural_map(func.body, (For, _in_loop))
    body = tvm_ffi.structural_map(body, (SeqStmt, _alone))  # such as the last element of all
    return tirx.PrimFunc(func.params, body, func.ret_type, func.attrs)


def _in_loop(loop: For) -> Stmt:
    if not isinstance(loop.body, SeqStmt):
        return loop
    vector = loop.kind == ForKind.VECTORIZED
    lanes = constant(loop.extent) if vector else 1
    assert lanes is not None
    kept, stmts = _kept(loop.body.seq, lanes, loop.loop_var if vector else int64(0))
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


def _alone(block: SeqStmt) -> Stmt:
    kept, stmts = _kept(block.seq, 1, int64(0))
    return sequence([*(tirx.AllocBuffer(home) for home in kept), *stmts]) if kept else block


def _kept(block: Sequence[Stmt], lanes: int, place: Expr) -> tuple[list[Var], list[Stmt]]:
    """Buffers for some of the scalars that statements bind, and the statements with these."""
    kept: list[Var] = []
    known: dict[Var, Expr] = {}
    sizes: dict[Var, int] = {}
    stmts: list[Stmt] = []
    for stmt in block:
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
    return kept, stmts
