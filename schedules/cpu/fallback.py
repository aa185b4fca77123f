"""Everything else: opaque blocks, loops with state, calls to outside code stay as they are."""

from __future__ import annotations

from dataclasses import dataclass

from tvmext.arch import CpuArch

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
        return Scheduled(kernel.func)
