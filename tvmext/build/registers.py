"""Buffers of kernels for CPUs that LLVM keeps in registers: none is laid over another.

    for .. { acc: float32[8, 8] }   for .. { acc: float32[8, 16] }     of two tiles, one after another

TVM gives buffers that are not needed at once the same memory (its StorageRewrite). LLVM, which takes
them apart into registers, then finds one of vectors of both lengths, and joins and halves vectors at
every step of a sum. It spares what is "local" to a thread; but for a CPU it takes that from a pool of
memory, so that buffers are local only until the pass has run.
"""

from __future__ import annotations

from math import prod

import tvm
import tvm_ffi
from tvm import tirx
from tvm.ir import StringImm, Var

from tvmext.arch import dtype_bits
from tvmext.passes.rewrite import rewrite_bodies
from tvmext.schedules.cpu.tile_function import APART, ON_STACK
from tvmext.schedules.kernel.analysis import collect, constant, substitute

STACK_BYTES = 1024
"""From this size on TVM takes a buffer from a pool, and not from the stack (kMaxStackAlloca), unless
it says `ON_STACK`, which its StorageRewrite forgets."""


def local(mod: tvm.IRModule) -> tvm.IRModule:
    """A module whose kernels have "local" buffers where those go to the stack."""

    def body(func: tirx.PrimFunc) -> tirx.Stmt:
        found = [alloc.buffer for alloc in collect(func.body, tirx.AllocBuffer) if _stays(alloc)]
        return substitute(func.body, {one: _like(one, "local") for one in found})

    return rewrite_bodies(mod, body)


def on_stack(mod: tvm.IRModule) -> tvm.IRModule:
    """A module whose kernels have such buffers on the stack."""

    def body(func: tirx.PrimFunc) -> tirx.Stmt:
        allocs = collect(func.body, tirx.AllocBuffer)
        found = {one.buffer: one for one in allocs if one.buffer.scope() == "local"}
        homes = {one: _like(one, "global") for one in found}
        large = {homes[one] for one in found if not _small(one)}

        def kept(alloc: tirx.AllocBuffer) -> tirx.Stmt:
            if alloc.buffer not in large:
                return alloc
            return tirx.AllocBuffer(alloc.buffer, annotations={ON_STACK: tirx.const(1, "int32")})

        moved = substitute(func.body, homes)
        return tvm_ffi.structural_map(moved, (tirx.AllocBuffer, kept)) if large else moved

    return rewrite_bodies(mod, body)


def apart(mod: tvm.IRModule) -> tvm.IRModule:
    """A module whose functions with `APART` are computed by one that no other takes into itself.

    That is how TVM makes the function that a kernel's arguments are passed on to. It is made here,
    where the memory that a function needs has been found, for it would be passed on as well.
    """

    def body(func: tirx.PrimFunc) -> tirx.Stmt:
        if APART not in func.attrs:
            return func.body
        name = StringImm(str(func.attrs[APART]))
        return tirx.AttrStmt(tirx.const(0, "int64"), "compute_scope", name, func.body)

    return rewrite_bodies(mod, body)


def _stays(alloc: tirx.AllocBuffer) -> bool:
    return alloc.buffer.scope() == "global" and (
        ON_STACK in alloc.annotations or _small(alloc.buffer)
    )


def _like(buffer: Var, scope: str) -> Var:
    return tirx.decl_buffer(list(buffer.shape), str(buffer.dtype), buffer.name, scope=scope)


def _small(buffer: Var) -> bool:
    sizes = [constant(n) for n in buffer.shape]
    if any(n is None for n in sizes):
        return False
    dtype = str(buffer.dtype)
    count = prod(n for n in sizes if n is not None) * tvm.DataType(dtype).lanes
    bits = dtype_bits(dtype) * count
    return bits < 8 * STACK_BYTES
