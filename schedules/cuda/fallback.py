"""Everything else: opaque blocks and loops with state run on one thread: right, and slow."""

from __future__ import annotations

from dataclasses import dataclass

import tvm_ffi
from tvm import tirx
from tvm.tirx import For, ForKind

from tvmext.arch import CudaArch

from ..rule import Kernel, Scheduled
from .launch import Block, launch


@dataclass(frozen=True)
class OneThread:
    """Nothing is known about the kernel, and nothing is decided."""


class Fallback:
    """Takes every kernel; kernels that have threads already stay as they are."""

    name = "fallback"

    def match(self, kernel: Kernel) -> OneThread:
        return OneThread()

    def choose(self, workload: OneThread, arch: CudaArch) -> OneThread:
        return workload

    def apply(
        self, kernel: Kernel, workload: OneThread, decision: OneThread, arch: CudaArch
    ) -> Scheduled:
        func = kernel.func
        bound: list[For] = []
        tvm_ffi.structural_walk(
            func.body, (For, lambda f: bound.append(f) if _is_thread(f) else None)
        )
        if bound:
            return Scheduled(func)
        body = launch(1, Block(1), lambda *_: _serial(func.body))
        return Scheduled(tirx.PrimFunc(func.params, body, func.ret_type, func.attrs))


def _is_thread(loop: For) -> bool:
    return bool(loop.kind == ForKind.THREAD_BINDING)


def _serial(stmt: tirx.Stmt) -> tirx.Stmt:
    """`stmt` without loops that are spread over the threads of a CPU."""

    def visit(loop: For) -> For:
        if loop.kind == ForKind.SERIAL:
            return loop
        return For(loop.loop_var, loop.min, loop.extent, ForKind.SERIAL, loop.body)

    return tvm_ffi.structural_map(stmt, (For, visit))
