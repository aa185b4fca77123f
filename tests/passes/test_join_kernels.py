"""Kernels that become one for several sizes, and those that must not."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import tvm
from tvm import relax, te, tirx
from tvm.tirx import PrimFunc

from tests.passes.modules import assert_same, build, random
from tvmext.passes.join_kernels import JoinKernels

N = tirx.Var("n", "int64")


def kernels(mod: tvm.IRModule) -> list[PrimFunc]:
    return [func for func in mod.functions.values() if isinstance(func, PrimFunc)]


def module(compute: Callable[[te.Tensor], te.Tensor], *shapes: tuple) -> tvm.IRModule:
    def body(bb: relax.BlockBuilder, *values: relax.Var) -> list[relax.Expr]:
        return [bb.emit_te(compute, value) for value in values]

    return build([(f"x{i}", shape, "float32") for i, shape in enumerate(shapes)], body)


def sums(x: te.Tensor) -> te.Tensor:
    """Of each row, twice its first element added: a buffer and loops of its own."""
    twice = te.compute(x.shape, lambda i, h, d: x[i, h, d] * 2.0 + x[i, 0, d], "twice")
    k = te.reduce_axis((0, x.shape[1]), "k")
    return te.compute((x.shape[0], x.shape[2]), lambda i, d: te.sum(twice[i, k, d], k), "sums")


def moved(x: te.Tensor) -> te.Tensor:
    """Reads from a place that no tensor has as a size."""
    start = int(x.shape[1]) // 2
    return te.compute((x.shape[0], 2), lambda i, j: x[i, j + start])


def firsts(x: te.Tensor) -> te.Tensor:
    return te.compute((x.shape[0], x.shape[2]), lambda i, d: x[i, 0, d])


@pytest.mark.parametrize("n", [0, 1, 3])
def test_sizes_that_differ_become_names(n: int) -> None:
    before = module(sums, (N, 3, 4), (N, 5, 4), (N, 1, 4))
    after = JoinKernels(lambda func: str(func.params[0].shape[2]))(before)
    (one,) = kernels(after)
    assert [isinstance(dim, tirx.Var) for dim in one.params[0].shape] == [True, True, False]
    assert len(kernels(before)) == 3
    assert_same(before, after, random(n, 3, 4), random(n, 5, 4), random(n, 1, 4))


def test_kernels_that_are_not_alike_stay_apart() -> None:
    before = module(sums, (N, 3, 4), (N, 5, 4))
    apart: list[Callable[[PrimFunc], object]] = [
        lambda _func: None,
        lambda func: str(func.params[0].shape[1]),  # a form for both is not like either
    ]
    for alike in apart:
        assert len(kernels(JoinKernels(alike)(before))) == 2
    assert len(kernels(JoinKernels()(before))) == 2


def test_another_form_stays_apart() -> None:
    def either(x: te.Tensor) -> te.Tensor:
        return sums(x) if int(x.shape[1]) > 3 else firsts(x)

    before = module(either, (N, 3, 4), (N, 5, 4))
    assert len(kernels(JoinKernels(lambda _func: "")(before))) == 2


def test_a_size_that_no_tensor_tells_stays() -> None:
    before = module(moved, (N, 4), (N, 6))
    assert len(kernels(JoinKernels(lambda _func: "")(before))) == 2


def test_kernels_of_known_sizes_stay_apart() -> None:
    before = module(sums, (2, 3, 4), (2, 5, 4))
    assert len(kernels(JoinKernels(lambda _func: "")(before))) == 2
