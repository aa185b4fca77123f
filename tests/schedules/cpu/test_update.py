"""A large tensor with a few new elements is copied in one go; nothing else is."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from tvm import te, tirx

from tests.schedules.cpu.kernels import ARCH, composed, normal, run, scheduled
from tvmext.schedules.kernel.analysis import collect
from tvmext.schedules.rule import Kernel

HEADS, LENGTH, WIDTH = 2, 600, 64


def cache(
    batch: int | str, rows: int | str = 1, length: int = LENGTH, dtype: str = "float32"
) -> Any:
    """A cache, with `rows` at a position that is data computed of new ones."""

    def build(old: te.Tensor, new: te.Tensor, at: te.Tensor) -> te.Tensor:
        two = tirx.const(2, dtype)

        def value(b: Any, h: Any, r: Any, c: Any) -> Any:
            is_new = tirx.all(at[0] <= r, r < at[0] + new.shape[2])
            return tirx.if_then_else(is_new, new[b, h, r - at[0], c] * two, old[b, h, r, c])

        return te.compute(old.shape, value)

    return composed(
        build,
        (long(batch, HEADS, length, WIDTH), dtype),
        (long(batch, HEADS, rows, WIDTH), dtype),
        (long(1), "int64"),
    )


def long(*shape: int | str) -> list[Any]:
    """Sizes of 64 bits, as Relax has them."""
    return [tirx.IntImm("int64", dim) if isinstance(dim, int) else dim for dim in shape]


def taken(kernel: Kernel, cores: int = 1) -> tuple[tirx.PrimFunc, str]:
    function, selection = scheduled(kernel, replace(ARCH, cores=cores))
    return function, selection.rule


@pytest.mark.parametrize("batch", [2, "n"])
@pytest.mark.parametrize("cores", [1, 2])
@pytest.mark.parametrize("rows", [1, 5])
def test_new_rows_of_a_cache(batch: int | str, cores: int, rows: int) -> None:
    function, rule = taken(cache(batch, rows), cores)
    assert rule == "update"
    parallel = [loop.kind == tirx.ForKind.PARALLEL for loop in collect(function.body, tirx.For)]
    assert sum(parallel) == cores - 1
    old, new = normal(2, HEADS, LENGTH, WIDTH), normal(2, HEADS, rows, WIDTH, seed=1)
    for at in (0, 7, LENGTH - rows, LENGTH - 1, LENGTH, -1, 2**40, -(2**40)):
        (found,) = run(function, {"x0": old, "x1": new, "x2": np.array([at])})
        expected = old.copy()
        for row in range(rows):
            if 0 <= at + row < LENGTH:
                expected[:, :, at + row] = new[:, :, row] * 2
        np.testing.assert_array_equal(found, expected)


def test_bytes_and_batches_without_elements() -> None:
    function, rule = taken(cache("n", 1, 4 * LENGTH, "int8"), 2)
    assert rule == "update"
    for batch in (0, 1, 3):
        old = np.arange(batch * HEADS * 4 * LENGTH * WIDTH).astype(np.int8)
        old = old.reshape(batch, HEADS, 4 * LENGTH, WIDTH)
        new = np.full((batch, HEADS, 1, WIDTH), 21, np.int8)
        (found,) = run(function, {"x0": old, "x1": new, "x2": np.array([3])})
        old[:, :, 3] = 42
        np.testing.assert_array_equal(found, old)


def test_small_caches_and_many_new_rows_are_not() -> None:
    assert taken(cache(1, 1, 60))[1] == "elementwise"
    assert taken(cache(2, LENGTH // 2))[1] == "elementwise"
    assert taken(cache(2, "m"))[1] == "elementwise", "as many as there may be"


def test_indices_of_32_bits_are_not() -> None:
    def first(old: te.Tensor, new: te.Tensor) -> te.Tensor:
        return te.compute(old.shape, lambda r, c: tirx.if_then_else(r < 1, new[r, c], old[r, c]))

    shapes = (((LENGTH, 256), "float32"), ((1, 256), "float32"))
    assert taken(composed(first, *shapes))[1] == "elementwise"
    assert taken(composed(first, *((long(*s), t) for s, t in shapes)))[1] == "update"


def test_what_moves_old_elements_is_not() -> None:
    def shifted(old: te.Tensor, new: te.Tensor) -> te.Tensor:
        def value(r: Any, c: Any) -> Any:
            return tirx.if_then_else(r < LENGTH - 1, old[r + 1, c], new[0, c])

        return te.compute(old.shape, value)

    kernel = composed(shifted, (long(LENGTH, 256), "float32"), (long(1, 256), "float32"))
    function, rule = taken(kernel)
    assert rule == "elementwise"
    old, new = normal(LENGTH, 256), normal(1, 256, seed=1)
    (found,) = run(function, {"x0": old, "x1": new})
    np.testing.assert_array_equal(found, np.concatenate([old[1:], new]))
