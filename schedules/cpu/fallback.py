"""Everything else: opaque blocks, loops with state, calls to outside code stay as they are."""

from __future__ import annotations

from dataclasses import dataclass

from tvm import tirx

from tvmext.arch import CpuArch

from ..kernel.analysis import collect, substitute
from ..kernel.emit import allocate
from ..rule import Kernel, Scheduled


@dataclass(frozen=True)
class AsItIs:
    """Nothing is known about the kernel, and nothing is decided."""


class Fallback:
    """Matches every kernel and keeps its loops."""

    name = "fallback"

    def match(self, kernel: Kernel) -> AsItIs:
        return AsItIs()

    def choose(self, workload: AsItIs, arch: CpuArch) -> AsItIs:
        return workload

    def apply(self, kernel: Kernel, workload: AsItIs, decision: AsItIs, arch: CpuArch) -> Scheduled:
        return Scheduled(_with_registers(kernel.func))


def _with_registers(func: tirx.PrimFunc) -> tirx.PrimFunc:
    """The function with what one thread alone has ("local") where LLVM finds registers for it.

    Only what is called "global" and small does TVM put on the stack of a CPU; for the rest it asks
    its pool of memory, in each iteration that begins there.
    """
    found = [alloc.buffer for alloc in collect(func.body, tirx.AllocBuffer)]
    homes = {
        buffer: allocate(buffer.shape, str(buffer.dtype), buffer.name, "global")
        for buffer in found
        if buffer.scope() == "local"
    }
    return func.with_body(substitute(func.body, homes)) if homes else func
