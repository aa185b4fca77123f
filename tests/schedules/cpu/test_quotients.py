"""Axes whose elements are repeated."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from tvm import te

from tests.schedules.cpu.kernels import ARCH, check, composed, normal, scheduled
from tvmext.arch import FAMILIES
from tvmext.schedules.cpu.staged import as_stages
from tvmext.schedules.kernel.stages import Stages


def repeat(times: int) -> Any:
    def build(x: te.Tensor) -> te.Tensor:
        shape = [x.shape[0], x.shape[1] * times]
        return te.compute(shape, lambda i, j: x[i, j // times] * 2, name="repeat")

    return build


@pytest.mark.parametrize("times", [2, 3])
@pytest.mark.parametrize("dims", [(3, 37), ("n", "m")])
def test_repeats(times: int, dims: tuple) -> None:
    found = as_stages(composed(repeat(times), (dims, "float32")))
    assert isinstance(found, Stages)
    assert found.stages[0].spatial[-1].size == times
    x = normal(3, 37)
    expected = np.repeat(x, times, 1) * 2
    check(repeat(times), [x], expected, dims=[dims], how=composed, rule="elementwise")


@pytest.mark.parametrize("dtype", ["float32", "int8", "bfloat16"])
def test_vectors_run_along_what_is_repeated(dtype: str) -> None:
    def build(x: te.Tensor) -> te.Tensor:
        shape = [x.shape[0], x.shape[1] * 2, x.shape[2] * 2]
        return te.compute(shape, lambda c, h, w: x[c, h // 2, w // 2], name="nearest")

    def broadcast(x: te.Tensor) -> te.Tensor:
        return te.compute([*x.shape, 48], lambda c, h, w, r: x[c, h, w], name="broadcast")

    x = (normal(3, 5, 37) * 20).astype(ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype)
    for how, mode in ((build, "interleave"), (broadcast, "map")):
        _, selection = scheduled(composed(how, (x.shape, dtype)))
        assert selection.decision[0].plans[0].mode == mode
    expected = x.repeat(2, 1).repeat(2, 2)
    arch = replace(ARCH, cores=4)
    check(build, [x], expected, how=composed)
    check(build, [x], expected, dims=[("c", "h", "w")], how=composed, arch=arch)


def test_must_not_fire() -> None:
    def both(x: te.Tensor) -> te.Tensor:
        return te.compute([8], lambda i: x[i // 2] + x[i], name="both")

    for build, size in ((both, 8), (repeat(9), 4)):
        shape = (size,) if build is both else (3, size)
        found = as_stages(composed(build, (shape, "float32")))
        assert isinstance(found, Stages)
        assert found.stages[0].spatial[-1].size in (8, 36)


@pytest.mark.parametrize("dims", [(3, 37, 3), (2, 24, 2), (1, 5, 8)])
@pytest.mark.parametrize("symbolic", [False, True])
def test_several_runs_are_stored_in_turns(dims: tuple[int, int, int], symbolic: bool) -> None:
    """As a shuffle of channels does; squares would not fit."""
    _, _, runs = dims

    def build(x: te.Tensor, b: te.Tensor) -> te.Tensor:
        shape = [x.shape[0], x.shape[2], runs]
        return te.compute(shape, lambda n, i, r: x[n, r, i] * b[r, i] + r, name="shuffle")

    n, size, _ = dims
    x, b = normal(n, runs, size), normal(runs, size, seed=1)
    shapes = [("n", runs, "m"), (runs, "m")] if symbolic else [x.shape, b.shape]
    kinds = composed(build, *((shape, "float32") for shape in shapes))
    _, selection = scheduled(kinds)
    assert selection.decision[0].plans[0].mode == "interleave"
    expected = (x * b + np.arange(runs, dtype="float32")[:, None]).transpose(0, 2, 1)
    check(build, [x, b], expected, dims=shapes, how=composed)


@pytest.mark.parametrize("dims", [(3, 37, 2), (2, 5, 3)])
def test_wide_elements_are_stored_in_turns(dims: tuple[int, int, int]) -> None:
    """A register of four 64-bit integers, and an odd length: a vector of one would be none."""

    def build(x: te.Tensor) -> te.Tensor:
        shape = [x.shape[0], x.shape[2], x.shape[1]]
        return te.compute(shape, lambda n, i, r: x[n, r, i] * 3, name="shuffle")

    n, size, runs = dims
    x = np.arange(n * runs * size).reshape(n, runs, size)
    narrow = FAMILIES["x86-64-v3"]
    _, selection = scheduled(composed(build, (x.shape, "int64")), narrow)
    assert selection.decision[0].plans[0].mode == "interleave"
    check(build, [x], (x * 3).transpose(0, 2, 1), how=composed, arch=narrow)
