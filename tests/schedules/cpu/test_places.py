"""Rows of a product that lie in windows: where is looked up once for a tile."""

from __future__ import annotations

import numpy as np
import pytest
from tvm import te, tirx

from tests.schedules.cpu.kernels import composed, normal, run, scheduled
from tvmext.schedules.kernel.analysis import collect

DEPTH, COLUMNS = 12, 40


def windows(a: te.Tensor, b: te.Tensor) -> te.Tensor:
    """Pictures of 4 x 4 pixels in windows of 2 x 2, times a matrix."""
    k = te.reduce_axis((0, DEPTH), "k")

    def element(w: tirx.Var, p: tirx.Var, j: tirx.Var) -> te.Tensor:
        pixel = (w % 4 // 2 * 2 + p // 2) * 4 + w % 2 * 2 + p % 2
        return te.sum(a[w // 4, pixel, k] * b[k, j], k)

    return te.compute((a.shape[0] * 4, 4, COLUMNS), element)


def places(function: tirx.PrimFunc) -> list[tirx.AllocBuffer]:
    found = collect(function.body, tirx.AllocBuffer)
    return [one for one in found if one.buffer.name == "place"]


@pytest.mark.parametrize("n, dim", [(0, "n"), (1, "n"), (5, "n"), (3, 3)])
def test_windows(n: int, dim: int | str) -> None:
    a, b = normal(n, 16, DEPTH), normal(DEPTH, COLUMNS, seed=1)
    shapes = ((dim, 16, DEPTH), "float32"), (b.shape, "float32")
    function, selection = scheduled(composed(windows, *shapes))
    assert selection.rule == "gemm" and places(function)
    (result,) = run(function, {"x0": a, "x1": b})
    cut = a.reshape(n, 2, 2, 2, 2, DEPTH).transpose(0, 1, 3, 2, 4, 5).reshape(n * 4, 4, DEPTH)
    np.testing.assert_allclose(result, cut @ b, rtol=1e-5, atol=1e-5)


def test_rows_one_after_another_are_not_looked_up() -> None:
    def plain(a: te.Tensor, b: te.Tensor) -> te.Tensor:
        k = te.reduce_axis((0, DEPTH), "k")
        shape = (a.shape[0], 16, COLUMNS)
        return te.compute(shape, lambda w, p, j: te.sum(a[w, p, k] * b[k, j], k))

    shapes = (("n", 16, DEPTH), "float32"), ((DEPTH, COLUMNS), "float32")
    function, _ = scheduled(composed(plain, *shapes))
    assert not places(function)
