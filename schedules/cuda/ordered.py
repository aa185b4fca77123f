"""Loops whose order matters: scatters. Threads share out what is written, each keeps the order.

    for i, j:  out[index[i, j], j] = op(out[index[i, j], j], update[i, j])

    thread (o, j):  for i:  if index[i, j] % owners == o:  out[index[i, j], j] = ...

A loop whose variable is an index of all that is written (j) becomes threads: its iterations never
meet. An index that is data is shared out by its remainder; every owner walks all updates and takes
its own, so that equal indices meet in one thread, in the order in which they were written. No
atomics: results do not depend on who comes first.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import tvm_ffi
from tvm import s_tir, tirx
from tvm.ir import Expr, TensorLoad, Var
from tvm.tirx import BufferStore, For, ForKind, Stmt

from tvmext.arch import CudaArch

from ..kernel.analysis import Axis, analyzer, collect, constant, flat_index, substitute, variables
from ..kernel.axes import product
from ..kernel.emit import block, ceildiv, index, known, loop
from ..rule import Declined, Kernel, Scheduled
from .launch import Block, launch, unraveled, when

THREADS = 256
PER_THREAD = 4
"""Elements of a thread, a block apart, where nothing but threads is left of the loops."""
ENOUGH = 4096
"""Threads that hide the latency of the updates; owners beyond them would only read more indices."""
UNKNOWN = 1024
"""What a size is taken for that is known at run time only."""


@dataclass(frozen=True)
class Nest:
    """One loop nest: how many elements its threads have, and how many values the shared index.

    `elements` counts what loops that became threads cover; `positions` is 1 without a shared index.
    Sizes are None when they are known at run time only.
    """

    elements: int | None
    positions: int | None
    stmt: Stmt = field(repr=False, compare=False)
    own: tuple[For, ...] = field(repr=False, compare=False)
    dim: int | None = field(repr=False, compare=False)


@dataclass(frozen=True)
class Nests:
    """A kernel as loop nests, one launch after another."""

    nests: tuple[Nest, ...]


@dataclass(frozen=True)
class Owners:
    """Among how many threads the index that is data is shared out, per nest."""

    owners: tuple[int, ...]


class Ordered:
    """Loop nests in order, each of which writes one output."""

    name = "ordered"

    def match(self, kernel: Kernel) -> Nests | Declined:
        statements = _statements(kernel.func.body)
        if isinstance(statements, Declined):
            return statements
        nests = []
        for stmt in statements:
            nest = _nest(stmt, kernel.func)
            if isinstance(nest, Declined):
                return nest
            nests.append(nest)
        return Nests(tuple(nests)) if nests else Declined("it does nothing")

    def choose(self, workload: Nests, arch: CudaArch) -> Owners:
        return Owners(tuple(map(_owners, workload.nests)))

    def apply(self, kernel: Kernel, workload: Nests, decision: Owners, arch: CudaArch) -> Scheduled:
        func = kernel.func
        parts = [_launched(nest, owners) for nest, owners in zip(workload.nests, decision.owners)]
        return Scheduled(tirx.PrimFunc(func.params, block(*parts), func.ret_type, func.attrs))


def _owners(nest: Nest) -> int:
    elements = UNKNOWN if nest.elements is None else max(1, nest.elements)
    positions = UNKNOWN if nest.positions is None else max(1, nest.positions)
    return min(positions, max(1, ENOUGH // elements))


def _statements(stmt: Stmt) -> list[Stmt] | Declined:
    """The loop nests of a body, in order, out of the blocks that hold them."""
    if isinstance(stmt, s_tir.SBlockRealize):
        inner = stmt.block
        if inner.iter_vars or inner.alloc_buffers or inner.init is not None:
            return Declined("a block has axes or buffers of its own")
        return _statements(inner.body)
    if isinstance(stmt, tirx.AttrStmt) and stmt.attr_key != "thread_extent":
        return _statements(stmt.body)
    if isinstance(stmt, tirx.SeqStmt):
        found: list[Stmt] = []
        for part in stmt.seq:
            more = _statements(part)
            if isinstance(more, Declined):
                return more
            found += more
        return found
    return [stmt]


def _nest(stmt: Stmt, func: tirx.PrimFunc) -> Nest | Declined:
    loops: list[For] = []
    stores: list[BufferStore] = []
    if not _plain(stmt, loops, stores) or not stores:
        return Declined("there is more than loops, conditions and stores")
    out = stores[0].buffer
    if any(not store.buffer.same_as(out) for store in stores) or out not in set(func.params):
        return Declined("a loop nest does not write one output")
    names = {loop.loop_var for loop in loops}
    if any(variables(loop.extent) & names or constant(loop.min) != 0 for loop in loops):
        return Declined("a loop's bounds depend on another loop")
    places = [tuple(store.indices) for store in stores]
    places += [
        tuple(load.indices) for load in collect(stmt, TensorLoad) if load.source.same_as(out)
    ]
    first = places[0]
    if not all(tvm_ffi.structural_equal(place, first) for place in map(list, places[1:])):
        return Declined("it reads other elements than it writes")
    own = tuple(loop for loop in loops if _is_own(loop, stores[0]))
    elements = constant(product(loop.extent for loop in own))
    vars_ = {loop.loop_var for loop in own}
    if len(own) == len(loops):
        return Nest(elements, 1, stmt, own, None)
    shared = [d for d, place in enumerate(first) if not (isinstance(place, Var) and place in vars_)]
    if not shared and not own:
        return Declined("everything goes to one element")
    if not shared:
        return Nest(elements, 1, stmt, own, None)
    return Nest(elements, constant(out.shape[shared[0]]), stmt, own, shared[0])


def _plain(stmt: Stmt, loops: list[For], stores: list[BufferStore]) -> bool:
    """Whether `stmt` is loops, conditions, names and stores only; collects loops and stores."""
    if isinstance(stmt, For):
        loops.append(stmt)
        is_loop = stmt.kind in (ForKind.SERIAL, ForKind.PARALLEL, ForKind.UNROLLED)
        return bool(is_loop) and _plain(stmt.body, loops, stores)
    if isinstance(stmt, tirx.IfThenElse):
        branches = [stmt.then_case] + ([stmt.else_case] if stmt.else_case is not None else [])
        return all(_plain(branch, loops, stores) for branch in branches)
    if isinstance(stmt, tirx.SeqStmt):
        return all(_plain(part, loops, stores) for part in stmt.seq)
    if isinstance(stmt, BufferStore):
        stores.append(stmt)
        return True
    return isinstance(stmt, tirx.Bind)


def _is_own(loop: For, store: BufferStore) -> bool:
    """Different iterations write different elements: the variable is an index, or the place."""
    if any(place.same_as(loop.loop_var) for place in store.indices):
        return True
    axis = Axis(loop.loop_var, loop.extent, "spatial")
    flat = analyzer([axis], store.buffer.shape).simplify(flat_index(store))
    return bool(flat.same_as(loop.loop_var))


def _launched(nest: Nest, owners: int) -> Stmt:
    extents = [known(loop.extent) for loop in nest.own]
    total = known(product([index(owners), *map(index, extents)]))
    each = PER_THREAD if nest.dim is None and _is_all_threads(nest) else 1

    def thread(number: Expr, x: Expr, _y: Expr) -> Stmt:
        def one(u: Expr) -> Stmt:
            flat = (number * each + u) * THREADS + x
            owner, *at = unraveled(flat, [owners, *extents])
            values = dict(zip((loop.loop_var for loop in nest.own), at))
            mine = None if owners == 1 or nest.dim is None else (nest.dim, owners, owner)
            body = substitute(_kept(nest.stmt, set(values), mine), values)
            return when(flat < index(total), body)

        return loop(each, one, ForKind.UNROLLED, "u")

    return launch(ceildiv(total, THREADS * each), Block(THREADS), thread)


def _is_all_threads(nest: Nest) -> bool:
    """Whether no loop is left for a thread."""
    return len(collect(nest.stmt, For)) == len(nest.own)


def _kept(stmt: Stmt, own: set[Var], mine: tuple[int, int, Expr] | None) -> Stmt:
    """`stmt` without the loops that are threads, and with only the stores that are this owner's."""
    if isinstance(stmt, For):
        body = _kept(stmt.body, own, mine)
        if stmt.loop_var in own:
            return body
        return For(stmt.loop_var, stmt.min, stmt.extent, ForKind.SERIAL, body)
    if isinstance(stmt, tirx.IfThenElse):
        other = None if stmt.else_case is None else _kept(stmt.else_case, own, mine)
        return tirx.IfThenElse(stmt.condition, _kept(stmt.then_case, own, mine), other)
    if isinstance(stmt, tirx.SeqStmt):
        return block(*(_kept(part, own, mine) for part in stmt.seq))
    if isinstance(stmt, BufferStore) and mine is not None:
        dim, owners, owner = mine
        return when(tirx.floormod(stmt.indices[dim], owners).equal(owner), stmt)
    return stmt
