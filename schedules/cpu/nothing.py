"""Kernels whose results have no element, because one of their dims is 0: they do nothing.

What prepares for them need not be empty, such as the padding of an image without rows, and code
generation divides by sizes.
"""

from __future__ import annotations

from dataclasses import dataclass

from tvm import s_tir, tirx
from tvm.ir import Var

from tvmext.arch import CpuArch

from ..kernel.analysis import collect, constant
from ..rule import Declined, Kernel, Scheduled


@dataclass(frozen=True)
class Empty:
    """A kernel without results; nothing is decided."""


class Nothing:
    """Matches kernels all of whose results are known to have no element."""

    name = "nothing"
    takes_loaders = False

    def match(self, kernel: Kernel) -> Empty | Declined:
        results = _results(kernel.func)
        if not results or not all(0 in map(constant, result.shape) for result in results):
            return Declined("it has results")
        return Empty()

    def choose(self, workload: Empty, arch: CpuArch) -> Empty:
        return workload

    def apply(self, kernel: Kernel, workload: Empty, decision: Empty, arch: CpuArch) -> Scheduled:
        func = kernel.func
        body = tirx.Evaluate(tirx.const(0))
        return Scheduled(tirx.PrimFunc(func.params, body, func.ret_type, func.attrs))


def _results(func: tirx.PrimFunc) -> set[Var]:
    """The parameters that a kernel writes."""
    blocks = collect(func.body, s_tir.SBlock)
    return {region.source for block in blocks for region in block.writes} & set(func.params)
