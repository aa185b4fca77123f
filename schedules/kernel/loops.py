"""Loops as plain TIR: vector loops with exact tails, scopes with buffers of their own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from tvm import s_tir, tirx
from tvm.ir import Expr, PrimType, Var
from tvm.tirx import For, ForKind, SeqStmt, Stmt

from .analysis import constant

Body = Callable[[Expr], Stmt]
"""What a loop does at an index."""


def index_var(name: str) -> Var:
    """A fresh loop variable."""
    return Var(name, PrimType("int64"))


def int64(value: Any) -> Expr:
    """An index as an expression."""
    return tirx.const(value, "int64") if isinstance(value, int) else value


def sequence(stmts: Sequence[Stmt]) -> Stmt:
    """Statements one after another."""
    flat: list[Stmt] = []
    for stmt in stmts:
        flat.extend(stmt.seq if isinstance(stmt, SeqStmt) else [stmt])
    if not flat:
        return tirx.Evaluate(tirx.const(0, "int32"))
    return flat[0] if len(flat) == 1 else SeqStmt(flat)


def loop(extent: Any, body: Body, kind: ForKind = ForKind.SERIAL, name: str = "i") -> Stmt:
    """``for i in range(extent): body(i)``; no loop for an extent of one."""
    if constant(extent) == 1:
        return body(int64(0))
    var = index_var(name)
    return For(var, int64(0), int64(extent), kind, body(var))


def vector(lanes: int, body: Body) -> Stmt:
    """`body` for 0 .. lanes-1 at once."""
    return loop(lanes, body, ForKind.VECTORIZED, "lane")


def strip(extent: Expr, lanes: int, body: Body, kind: ForKind = ForKind.SERIAL) -> Stmt:
    """`body` for every index below `extent`, `lanes` at a time; what is left over without a guard.

    A constant remainder is one shorter vector, a symbolic one a scalar loop. `kind` is that of the
    loop over whole vectors.
    """
    if lanes == 1:
        return loop(extent, body, kind)
    size = constant(extent)
    if size is not None:
        whole, rest = divmod(size, lanes)
        parts = []
        if whole or not rest:
            parts.append(loop(whole, lambda o: vector(lanes, lambda i: body(o * lanes + i)), kind))
        if rest:
            parts.append(vector(rest, lambda i: body(i + whole * lanes)))
        return sequence(parts)
    whole = tirx.floordiv(extent, int64(lanes))
    return sequence(
        [
            loop(whole, lambda o: vector(lanes, lambda i: body(o * lanes + i)), kind),
            loop(extent - whole * lanes, lambda t: body(whole * lanes + t)),
        ]
    )


def nest(extents: Sequence[Expr], body: Callable[[tuple[Expr, ...]], Stmt]) -> Stmt:
    """Serial loops over all `extents`, the last one innermost."""

    def at(done: tuple[Expr, ...]) -> Stmt:
        if len(done) == len(extents):
            return body(done)
        return loop(extents[len(done)], lambda i: at((*done, i)))

    return at(())


def scope(body: Stmt, buffers: Sequence[Var], name: str = "scope") -> Stmt:
    """`body` with buffers that live only there."""
    if not buffers:
        return body
    return s_tir.SBlockRealize([], True, s_tir.SBlock([], [], [], name, body, None, list(buffers)))


def local(shape: Sequence[Any], dtype: str, name: str) -> Var:
    """A buffer for a `scope`."""
    return tirx.decl_buffer([int64(s) for s in shape], dtype, name)


def function(func: tirx.PrimFunc, body: Stmt, buffers: Sequence[Var]) -> tirx.PrimFunc:
    """`func` with another body, whose buffers are allocated outside of all loops."""
    root = s_tir.SBlock([], [], [], "root", body, None, list(buffers))
    return tirx.PrimFunc(
        func.params, s_tir.SBlockRealize([], True, root), func.ret_type, func.attrs
    )
