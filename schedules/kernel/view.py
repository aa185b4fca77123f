"""Reads a function as a list of equations, or says why it is none."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from tvm import s_tir, tirx
from tvm.ir import Expr, Var

from ..rule import Declined
from .analysis import REDUCE, SPATIAL, Axis, Block, Store, View, constant, substitute, variables


class _NotAView(Exception):
    """Raised inside `view` when the function is not a list of equations."""


@lru_cache(maxsize=16)  # several rules ask, and the price
def view(func: tirx.PrimFunc, *, own_bounds: bool = False) -> View | Declined:
    """The kernel as equations, or the reason why it is not a list of them.

    With `own_bounds`, the extent of a reduction's axis may depend on where the result goes
    (RoiAlign: on data). Such an extent may be negative, which is as good as zero.
    """
    try:
        root = func.body
        if isinstance(root, s_tir.SBlockRealize) and not root.block.iter_vars:
            root = root.block.body
        blocks = tuple(_block(stmt, own_bounds) for stmt in _sequence(root))
        if len({store.buffer for block in blocks for store in block.stores}) != sum(
            len(block.stores) for block in blocks
        ):
            raise _NotAView("a buffer is written by two blocks")
    except _NotAView as reason:
        return Declined(str(reason))
    return View(func, blocks)


def _sequence(stmt: Any) -> list[Any]:
    return list(stmt.seq) if isinstance(stmt, tirx.SeqStmt) else [stmt]


def _block(stmt: Any, own_bounds: bool) -> Block:
    loops, stmt = _loops(stmt)
    if not isinstance(stmt, s_tir.SBlockRealize):
        raise _NotAView("there is code outside of blocks")
    block = stmt.block
    if constant(stmt.predicate) != 1 or block.match_buffers or block.alloc_buffers:
        raise _NotAView(f"block '{block.name_hint}' has a predicate or buffers of its own")
    axes = tuple(
        _axis(var, value, loops, block.name_hint)
        for var, value in zip(block.iter_vars, stmt.iter_values)
    )
    if loops:
        raise _NotAView(f"block '{block.name_hint}' does not bind each loop to one axis")
    if own_bounds and isinstance(block.body, tirx.For) and block.init is None:
        return _with_own_bounds(axes, block.body)
    return Block(block.name_hint, axes, _stores(block))


def _loops(stmt: Any) -> tuple[dict[Var, Expr], Any]:
    """The extents of nested plain loops, and what is inside of them."""
    loops: dict[Var, Expr] = {}
    while isinstance(stmt, tirx.For):
        if stmt.kind != tirx.ForKind.SERIAL or constant(stmt.min) != 0:
            raise _NotAView("a loop is not a plain one")
        loops[stmt.loop_var] = stmt.extent
        stmt = stmt.body
    return loops, stmt


def _with_own_bounds(outer: tuple[Axis, ...], body: Any) -> Block:
    """A reduction whose loops stand inside of the block that names the axes of its result.

    The inner block names these axes again, each with its one value.
    """
    loops, stmt = _loops(body)
    if not isinstance(stmt, s_tir.SBlockRealize) or constant(stmt.predicate) != 1:
        raise _NotAView("there is code outside of blocks")
    if any(variables(extent) & set(loops) for extent in loops.values()):
        raise _NotAView("a loop's bounds depend on another loop")
    block = stmt.block
    axes, places = list(outer), {}
    for var, value in zip(block.iter_vars, stmt.iter_values):
        if isinstance(value, Var) and value in loops and var.iter_type == tirx.IterVar.CommReduce:
            extent = tirx.max(loops.pop(value), tirx.const(0, var.var.ty.dtype))
            axes.append(Axis(var.var, extent, REDUCE))
        elif var.iter_type == tirx.IterVar.DataPar and not variables(value) & set(loops):
            places[var.var] = value
        else:
            raise _NotAView(f"block '{block.name_hint}' does not bind each loop to one axis")
    if loops or block.match_buffers or block.alloc_buffers:
        raise _NotAView(f"block '{block.name_hint}' has loops or buffers of its own")
    stores = tuple(
        Store(
            s.buffer,
            tuple(substitute(i, places) for i in s.indices),
            substitute(s.value, places),
            None if s.init is None else substitute(s.init, places),
        )
        for s in _stores(block)
    )
    return Block(block.name_hint, tuple(axes), stores)


def _axis(var: tirx.IterVar, value: Expr, loops: dict[Var, Expr], block: str) -> Axis:
    kind = {tirx.IterVar.DataPar: SPATIAL, tirx.IterVar.CommReduce: REDUCE}.get(var.iter_type)
    if kind is None:
        raise _NotAView(f"block '{block}' has an opaque axis")
    if constant(value) == 0 and constant(var.dom.extent) == 1:
        return Axis(var.var, var.dom.extent, kind)
    extent = loops.pop(value, None) if isinstance(value, Var) else None
    if extent is None or constant(var.dom.min) != 0:
        raise _NotAView(f"block '{block}' does not bind each loop to one axis")
    return Axis(var.var, extent, kind)


def _stores(block: s_tir.SBlock) -> tuple[Store, ...]:
    inits = {store.buffer: store.value for store in _assignments(block.init, block.name_hint)}
    stores = _assignments(block.body, block.name_hint)
    if not stores or (inits and set(inits) != {store.buffer for store in stores}):
        raise _NotAView(f"block '{block.name_hint}' is not a list of stores")
    return tuple(Store(s.buffer, s.indices, s.value, inits.get(s.buffer)) for s in stores)


def _assignments(stmt: Any, block: str) -> list[Store]:
    """The stores of a straight-line body, its bound variables substituted."""
    if stmt is None:
        return []
    bound: dict[Var, Expr] = {}
    stores: list[Store] = []
    for item in _sequence(stmt):
        if isinstance(item, tirx.Bind):
            bound[item.var] = substitute(item.value, bound)
        elif isinstance(item, tirx.BufferStore):
            value = substitute(item.value, bound)
            stores.append(Store(item.buffer, tuple(item.indices), value))
        else:
            raise _NotAView(f"block '{block}' is not a list of stores")
    if len(stores) > len({store.buffer for store in stores}):
        raise _NotAView(f"block '{block}' writes a buffer twice")
    return stores
