"""Small buffers of kernels for CPUs: on the stack, and none laid over another."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import tvm
from tvm import tirx
from tvm.ir import Expr, Var

from tvmext.build import registers
from tvmext.build.kernels import code_generation, code_target, kernel_pipeline
from tvmext.schedules.kernel.analysis import collect
from tvmext.schedules.kernel.emit import VECTORIZED, allocate, block, loop

LLVM = tvm.target.Target("llvm")
STEPS = 3


def doubled(x: Var, y: Var, first: int, lanes: int, count: int) -> tirx.Stmt:
    """``y[first + i] = STEPS * x[first + i]`` for 16 elements, by way of a buffer of `count`."""
    sums = allocate([count], "float32", "sums")

    def each(store: Callable[[Expr], tirx.Stmt]) -> tirx.Stmt:
        def vector(start: int) -> tirx.Stmt:
            return loop(lanes, lambda lane: store(lane + start), VECTORIZED, "lane")

        return block(*map(vector, range(0, 16, lanes)))

    def clear(i: Expr) -> tirx.Stmt:
        return tirx.BufferStore(sums, tirx.const(0, "float32"), [i])

    def add(i: Expr) -> tirx.Stmt:
        return tirx.BufferStore(sums, sums[i] + x[i + first], [i])

    def leave(i: Expr) -> tirx.Stmt:
        return tirx.BufferStore(y, sums[i], [i + first])

    steps = loop(STEPS, lambda _: each(add), name="k")
    return block(tirx.AllocBuffer(sums), each(clear), steps, each(leave))


def module(*counts: int) -> tvm.IRModule:
    """One buffer after another, of so many elements: vectors of 8 lanes, then of 16."""
    x, y = (tirx.decl_buffer([32], "float32", name) for name in "xy")
    parts = [
        doubled(x, y, first, lanes, count)
        for (first, lanes), count in zip([(0, 8), (16, 16)], counts)
    ]
    body = loop(2, lambda _: block(*parts), name="again")
    func = tirx.PrimFunc([x, y], body).with_attrs({"global_symbol": "main", "s_tir": True})
    return tvm.IRModule({"main": func})


def lowered(mod: tvm.IRModule, pipeline: str) -> list[str]:
    """The scopes of the buffers that are left when a pipeline is through."""
    kernels, _, _ = tirx.get_tir_pipeline(pipeline)
    with code_generation(LLVM):
        func = kernels(tirx.transform.BindTarget(LLVM.with_host(LLVM))(mod))["main"]
    return [alloc.buffer.scope() for alloc in collect(func.body, tirx.AllocBuffer)]


def built(mod: tvm.IRModule) -> tvm.runtime.Module:
    with code_generation(LLVM):
        return tirx.build(mod, code_target(LLVM), kernel_pipeline(LLVM))


def run(library: tvm.runtime.Module) -> None:
    x = np.arange(32, dtype="float32")
    result = tvm.runtime.tensor(np.zeros(32, "float32"))
    library["main"](tvm.runtime.tensor(x), result)
    assert np.array_equal(result.numpy(), STEPS * x)


def test_none_is_laid_over_another() -> None:
    """TVM alone has one buffer for vectors of both lengths."""
    assert lowered(module(16, 16), "s_tir") == ["global"]
    assert lowered(module(16, 16), kernel_pipeline(LLVM)) == ["global", "global"]
    library = built(module(16, 16))
    assert "TVMBackendAllocWorkspace" not in library.inspect_source("ll")
    run(library)


def test_large_buffers_are_left_to_the_pool() -> None:
    library = built(module(16, 256))
    assert "TVMBackendAllocWorkspace" in library.inspect_source("ll")
    run(library)


def test_scopes_go_there_and_back() -> None:
    before = module(16, 256)
    there = registers.local(before)
    back = registers.on_stack(there)

    def scopes(mod: tvm.IRModule) -> list[str]:
        return [alloc.buffer.scope() for alloc in collect(mod["main"].body, tirx.AllocBuffer)]

    assert scopes(before) == scopes(back) == ["global", "global"]
    assert scopes(there) == ["local", "global"]
