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
from tvm import tirx
from tvm.ir import Var

from tvmext.arch import dtype_bits
from tvmext.passes.rewrite import rewrite_bodies
from tvmext.schedules.kernel.analysis import collect, constant, substitute

STACK_BYTES = 1024
"""From this size on TVM takes a buffer from a pool, and not from the stack (kMaxStackAlloca)."""


def local(mod: tvm.IRModule) -> tvm.IRModule:
    """A module whose kernels have "local" buffers where those go to the stack."""
    return _moved(mod, "global", "local")


def on_stack(mod: tvm.IRModule) -> tvm.IRModule:
    """A module whose kernels have such buffers on the stack."""
    return _moved(mod, "local", "global")


def _moved(mod: tvm.IRModule, old: str, new: str) -> tvm.IRModule:
    def body(func: tirx.PrimFunc) -> tirx.Stmt:
        found = [alloc.buffer for alloc in collect(func.body, tirx.AllocBuffer)]
        homes = {one: _like(one, new) for one in found if one.scope() == old and _small(one)}
        return substitute(func.body, homes)

    return rewrite_bodies(mod, body)


def _like(buffer: Var, scope: str) -> Var:
    return tirx.decl_buffer(list(buffer.shape), str(buffer.dtype), buffer.name, scope=scope)


def _small(buffer: Var) -> bool:
    sizes = [constant(n) for n in buffer.shape]
    if any(n is None for n in sizes):
        return False
    bits = dtype_bits(str(buffer.dtype)) * prod(n for n in sizes if n is not None)
    return bits < 8 * STACK_BYTES
