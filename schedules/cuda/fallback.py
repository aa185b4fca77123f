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
class AsItIs:
    """Nothing is known about the kernel but whether it has threads already (sort, top-k, scans)."""

    has_threads: bool


class Fallback:
    """Takes every kernel; kernels that have threads already stay as they are."""

    name = "fallback"

    def match(self, kernel: Kernel) -> AsItIs:
        bound: list[tirx.Stmt] = []
        for kind, binds in ((For, _is_thread), (tirx.AttrStmt, _is_extent)):
            tvm_ffi.structural_walk(
                kernel.func.body,
                (kind, lambda s, binds=binds: bound.append(s) if binds(s) else None),
            )
        return AsItIs(bool(bound))

    def choose(self, workload: AsItIs, arch: CudaArch) -> AsItIs:
        return workload

    def apply(
        self, kernel: Kernel, workload: AsItIs, decision: AsItIs, arch: CudaArch
    ) -> Scheduled:
        func = kernel.func
        if decision.has_threads:
            return Scheduled(func)
        body = launch(1, Block(1), lambda *_: _serial(func.body))
        return Scheduled(tirx.PrimFunc(func.params, body, func.ret_type, func.attrs))


def _is_thread(loop: For) -> bool:
    return bool(loop.kind == ForKind.THREAD_BINDING)


def _is_extent(attr: tirx.AttrStmt) -> bool:
    return bool(attr.attr_key == "thread_extent")


def _serial(stmt: tirx.Stmt) -> tirx.Stmt:
    """`stmt` without loops that are spread over the threads of a CPU."""

    def visit(loop: For) -> For:
        if loop.kind == ForKind.SERIAL:
            return loop
        return For(loop.loop_var, loop.min, loop.extent, ForKind.SERIAL, loop.body)

    return tvm_ffi.structural_map(stmt, (For, visit))
