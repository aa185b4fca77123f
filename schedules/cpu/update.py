"""Kernels that copy a large tensor but for a few elements: all of it first, then those.

    out[i] = value(i) if low <= i < high else x[i]     becomes     out = x
                                                                   out[low + k] = value(low + k)

as passes/virtual/update.py has it, which finds such kernels: a cache with a new row that the caller
does not give away. The copy is a plain loop, of which LLVM makes `memcpy`: many megabytes of it
are written past the caches, where a store of a vector reads its line first. 33.6 MB take 3.1 ms so,
4.8 ms by vectors (one core of a Zen 4).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from math import prod

import tvm_ffi
from tvm import tirx
from tvm.ir import Call, Expr, Var
from tvm.tirx import BufferStore, ForKind, PrimFunc, Stmt

from tvmext.arch import CpuArch, dtype_bits
from tvmext.passes.virtual.prims import UnmappedError
from tvmext.passes.virtual.update import update_in_place

from ..kernel import loops
from ..kernel.analysis import collect, constant
from ..kernel.axes import product
from ..kernel.loops import int64
from ..rule import Declined, Kernel, Scheduled

LEAST_BYTES = 1 << 18
"""Below this the second look at the new elements may cost more than the copy saves."""

FEW = 64
"""Of so many elements one is new, at most: new ones are not computed in vectors."""


@dataclass(frozen=True, eq=False)
class Updated:
    """`source` is copied to `target`, of which `writes` then overwrites some elements."""

    source: Var
    target: Var
    writes: Stmt


@dataclass(frozen=True)
class UpdatePlan:
    """`copies` are the parts of the copy, one for a core."""

    copies: int


class Update:
    """Copies with a few new elements."""

    name = "update"

    def match(self, kernel: Kernel) -> Updated | Declined:
        targets = {store.buffer for store in collect(kernel.func.body, BufferStore)}
        outs = [param for param in kernel.func.params if param in targets]
        if len(outs) != 1 or not any(map(_is_choice, collect(kernel.func.body, Call))):
            return Declined("it does not choose between old and new elements of one output")
        sources = [p for p in kernel.func.params if _is_like(p, outs[0])]
        if len(sources) != 1 or _least_bytes(outs[0]) < LEAST_BYTES:
            return Declined("no large tensor is like its output")
        if any(str(i.loop_var.ty.dtype) != "int64" for i in collect(kernel.func.body, tirx.For)):
            return Declined("its indices are not of 64 bits")
        try:
            func = update_in_place(kernel.func, sources)
        except UnmappedError as reason:
            return Declined(str(reason))
        if not _writes_few(func, outs[0]):
            return Declined("it is not a few elements that are new")
        return Updated(sources[0], outs[0], func.body)

    def choose(self, workload: Updated, arch: CpuArch) -> UpdatePlan:
        return UpdatePlan(arch.cores)

    def apply(
        self, kernel: Kernel, workload: Updated, decision: UpdatePlan, arch: CpuArch
    ) -> Scheduled:
        source, target = workload.source, workload.target

        def placed(var: Var) -> Var:
            return target if var.same_as(source) else var

        copy = _copy(source, target, decision.copies)
        writes = tvm_ffi.structural_map(workload.writes, (Var, placed))
        return Scheduled(loops.function(kernel.func, loops.sequence([copy, writes]), []))


def _copy(source: Var, target: Var, parts: int) -> Stmt:
    """All elements, in as many runs."""
    count = product(source.shape)
    length = tirx.ceildiv(count, int64(parts))
    zeros = [int64(0)] * (len(source.shape) - 1)

    def part(number: tirx.Var) -> Stmt:
        first = number * length
        size = length if parts == 1 else tirx.max(tirx.min(length, count - first), int64(0))

        def element(i: tirx.Var) -> Stmt:
            at = [*zeros, first + i]
            return BufferStore(target, source[tuple(at)], at)

        return loops.loop(size, element)

    return loops.loop(parts, part, ForKind.PARALLEL if parts > 1 else ForKind.SERIAL, "part")


def _is_choice(call: Call) -> bool:
    return getattr(call.op, "name", "").endswith("if_then_else")


def _is_like(param: Var, out: Var) -> bool:
    """Whether a parameter is another tensor of the same shape and type."""
    return (
        not param.same_as(out)
        and tirx.is_buffer_var(param)
        and str(param.ty.dtype) == str(out.ty.dtype)
        and len(param.shape) == len(out.shape)
        and all(map(tvm_ffi.structural_equal, param.shape, out.shape))
    )


def _least_bytes(tensor: Var) -> int:
    """What a tensor has where each free dim is 1; 0 if elements are not whole bytes."""
    bits = dtype_bits(str(tensor.ty.dtype))
    return 0 if bits % 8 else bits // 8 * _known(tensor.shape)


def _known(sizes: Iterable[Expr]) -> int:
    """The product of those that are known."""
    return prod(size for size in map(constant, sizes) if size is not None)


def _writes_few(func: PrimFunc, out: Var) -> bool:
    """Whether all loops together have few turns, whatever the free dims of `out` are."""
    turns = 0
    for extents in _nests(func.body.block.body):
        free = [dim for dim in out.shape if constant(dim) is None]
        for extent in extents:
            if constant(extent) is None:
                same = [n for n, dim in enumerate(free) if tvm_ffi.structural_equal(dim, extent)]
                if not same:
                    return False
                del free[same[0]]
        turns += _known(extents)
    return turns * FEW <= _known(out.shape)


def _nests(stmt: Stmt) -> Iterator[list[Expr]]:
    """The extents of the loops of each nest."""
    if isinstance(stmt, tirx.SeqStmt):
        for part in stmt.seq:
            yield from _nests(part)
        return
    extents = []
    while isinstance(stmt, tirx.For):
        extents.append(stmt.extent)
        stmt = stmt.body
    yield extents
