"""Rows in accesses of 16 bytes: a thread has runs of neighbours along the last axis of a row.

for chunk = lane, lane + threads, ...
    read = x[row, chunk * width + (0 .. width)]           one access for 16 bytes
    acc = op(acc, f(read[v])),  or  written[v] = f(read[v])        v = 0, 1, ... width - 1
    y[row, chunk * width + (0 .. width)] = written
the elements that are left over where the row ends             one per thread

What is not contiguous, or under a condition, is read one by one in between. A row whose length is
known at run time only begins at any multiple of it: the kernel asks whether that is one of 16
bytes, and if not it takes element after element.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import tvm_ffi
from tvm import sym, tirx
from tvm.ir import Call, Expr, TensorLoad, Var
from tvm.tirx import ForKind, Stmt

from tvmext.arch import dtype_bits

from ..kernel.access import accesses, strides
from ..kernel.analysis import (
    analyzer,
    buffer_of,
    collect,
    constant,
    counted,
    flat_index,
    substitute,
    variables,
)
from ..kernel.axes import Group, product
from ..kernel.emit import allocate, block, index, known, loop
from ..kernel.stages import Stage, Write
from .launch import Share, at_outer, typed, unraveled, when
from .vectors import is_bool

ACCESS_BITS = 128
"""The widest access of one thread (CUDA C++ Programming Guide, Device Memory Accesses)."""

Access: TypeAlias = TensorLoad | Write


@dataclass(frozen=True, eq=False)
class Runs:
    """Accesses that take whole runs of `width` neighbours where `dims` are multiples of it."""

    width: int
    found: tuple[Access, ...]
    dims: frozenset[Var]


def widest(stage: Stage, groups: Sequence[Group], most: int) -> int:
    """How many neighbours along the last of `groups` to take at once, `most` at most; 1 if none.

    16 bytes of the smallest elements that lie in runs there, or fewer: what all of them allow.
    """
    if any(collect(group.extent, TensorLoad) for group in groups):
        return 1
    along = _contiguous(stage, groups)
    width = max((_piece(a) for a in along), default=1)
    while width > 1 and (width > most or _runs(stage, groups, along, width) is None):
        width //= 2
    return width


Values: TypeAlias = dict[Var, Expr]


def in_runs(
    stage: Stage,
    groups: Sequence[Group],
    width: int,
    share: Share,
    row: Values,
    point: Callable[[Stage, Values], Stmt],
) -> Stmt:
    """``point(stage, values)`` for all that `groups` count, shared out among the threads of a row.

    `row` are the other axes. Inside of a run `point` gets the stage with registers for what is read
    and written at once. `width` is what `widest` found; there may be no such run any more where the
    buffers are others since.
    """

    def single(start: Expr) -> Callable[[Expr], Stmt]:
        return lambda i: point(stage, at_outer(groups, start + i))

    total = known(product(group.extent for group in groups))
    each = share.each(total, single(index(0)))
    runs = _runs(stage, groups, _contiguous(stage, groups), width)
    if runs is None:
        return each
    *outer, last = groups
    extent = index(last.extent)
    per_row = known(_simplified(tirx.floordiv(extent, width)))
    counts = [*(known(group.extent) for group in outer), per_row]

    def chunk(flat: Expr) -> Stmt:
        *before, number = unraveled(flat, counts)
        at: Values = {}
        for group, here in zip(outer, before):
            at |= group.at(here)
        return _run(stage, runs, row, lambda v: at | last.at(number * width + v), point)

    parts = share.each(known(product(map(index, counts))), chunk)
    left = known(_simplified(tirx.floormod(_scaled(extent, runs.dims, width), width)))
    if left != 0:
        left = known(_simplified(tirx.floormod(extent, width)))
        parts = block(parts, share.each(left, single(index(per_row) * width)))
    aligned: Expr | None = None
    for dim in sorted(runs.dims, key=lambda dim: dim.name):
        fits = tirx.floormod(dim, tirx.const(width, dim.ty.dtype)).equal(0)
        aligned = fits if aligned is None else tirx.And(aligned, fits)
    return parts if aligned is None else when(aligned, parts, each)


def _run(
    stage: Stage,
    runs: Runs,
    row: Values,
    inner: Callable[[Expr], Values],
    point: Callable[[Stage, Values], Stmt],
) -> Stmt:
    """One run of neighbours: what is read of it, what is computed, what is written."""
    v = Var("v", "int64")
    held: dict[object, Var] = {}
    buffers: list[Var] = []
    reads: list[Stmt] = []
    writes: list[Stmt] = []

    multiples = {dim: dim // runs.width * runs.width for dim in runs.dims}

    def own(access: Access, name: str) -> Var:
        buffers.append(allocate([runs.width], str(buffer_of(access).ty.dtype), name, "local"))
        return buffers[-1]

    def at(u: Expr) -> Values:
        # TVM reads neighbours at once only where it sees that they begin at a multiple.
        return multiples | typed({**row, **inner(u)})

    def moved(access: Access, body: Callable[[Expr], Stmt]) -> Stmt:
        """``body(u)`` for the run, 16 bytes at a time."""
        piece = min(runs.width, _piece(access))
        return loop(
            runs.width // piece,
            lambda p: loop(piece, lambda u: body(p * piece + u), ForKind.VECTORIZED, "u"),
            ForKind.UNROLLED,
            "p",
        )

    def read(load: TensorLoad) -> None:
        into = held[tvm_ffi.StructuralKey(load)] = own(load, "read")
        reads.append(moved(load, lambda u: tirx.BufferStore(into, substitute(load, at(u)), [u])))

    def write(old: Write) -> Write:
        if not any(old is one for one in runs.found):
            return old
        kept = own(old, "written")

        def leave(u: Expr) -> Stmt:
            where = [substitute(i, at(u)) for i in old.indices]
            return tirx.BufferStore(old.buffer, kept[u], where)

        writes.append(moved(old, leave))
        return replace(old, buffer=kept, indices=(v,))

    def taken(load: TensorLoad) -> Expr:
        into = held.get(tvm_ffi.StructuralKey(load))
        return load if into is None else into[v]

    for access in runs.found:
        if isinstance(access, TensorLoad) and tvm_ffi.StructuralKey(access) not in held:
            read(access)
    places = tuple(map(write, stage.writes))
    inside = replace(stage, point=stage.point.map(taken), writes=places)
    one = point(inside, inner(v))
    each = loop(runs.width, lambda u: substitute(one, {v: u}), ForKind.UNROLLED, "v")
    return block(*map(tirx.AllocBuffer, buffers), *reads, each, *writes)


def _contiguous(stage: Stage, groups: Sequence[Group]) -> list[Access]:
    """What moves with the last axis from neighbour to neighbour, and may be read first."""
    if not groups:
        return []
    guarded = {
        tvm_ffi.StructuralKey(load)
        for expr in stage.point.exprs()
        for call in collect(expr, Call)
        if getattr(call.op, "name", "") == "prim.if_then_else"
        for branch in call.args[1:]
        for load in collect(branch, TensorLoad)
    }
    count = len(stage.point.loads()) + (0 if stage.is_reduction else len(stage.writes))
    steps = strides(stage, groups[-1].axes[-1])
    return [
        access
        for access, step in list(zip(accesses(stage), steps))[:count]
        if step is not None
        and constant(step) == 1
        and not is_bool(access)
        and buffer_of(access).scope() != "local"
        and dtype_bits(str(buffer_of(access).ty.dtype)) >= 8
        and not (isinstance(access, TensorLoad) and tvm_ffi.StructuralKey(access) in guarded)
    ]


def _runs(
    stage: Stage, groups: Sequence[Group], along: Sequence[Access], width: int
) -> Runs | None:
    """The runs of `width` neighbours that all accesses `along` the row take, if they do."""
    dims: set[Var] = set()
    for access in along:
        needed = _needed(stage, groups[-1], access, min(width, _piece(access)))
        if needed is None:
            return None
        dims |= needed
    if len(groups) > 1:
        # A run must not go on in the next row of rows.
        extent = index(groups[-1].extent)
        if constant(_simplified(tirx.floormod(extent, width))) != 0:
            dims |= variables(extent) - {axis.var for axis in stage.axes}
            if constant(_simplified(tirx.floormod(_scaled(extent, dims, width), width))) != 0:
                return None
    return Runs(width, tuple(along), frozenset(dims)) if along else None


def _needed(stage: Stage, last: Group, access: Access, piece: int) -> set[Var] | None:
    """Dims that have to be multiples of `piece` so that runs begin at such; None if that is not
    enough."""
    axis = last.axes[-1]
    others = [a for a in stage.axes if a is not axis]
    chunk = Var("chunk", axis.var.ty)
    flat = flat_index(access)
    # The axes before the last of a group are folded into it.
    start = substitute(flat, {a.var: index(0) for a in last.axes[:-1]} | {axis.var: chunk * piece})
    ana = analyzer(others, buffer_of(access).shape)
    ana.bind(chunk, counted(last.extent))

    def begins_there(expr: Expr) -> bool:
        return constant(ana.simplify(tirx.floormod(expr, index(piece)))) == 0

    if begins_there(start):
        return set()
    dims = variables(start) - {chunk, *(a.var for a in stage.axes)}
    dims -= {var for var, _ in stage.point.binds}
    return dims if dims and begins_there(_scaled(start, dims, piece)) else None


def _scaled(expr: Expr, dims: Iterable[Var], by: int) -> Expr:
    """`expr` where the dims are multiples of `by`."""
    return substitute(expr, {dim: Var(dim.name, dim.ty) * by for dim in dims})


def _simplified(expr: Expr) -> Expr:
    return sym.Analyzer().simplify(expr)


def _piece(access: Access) -> int:
    """Elements in 16 bytes."""
    return ACCESS_BITS // dtype_bits(str(buffer_of(access).ty.dtype))
