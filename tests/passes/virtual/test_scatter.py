"""Scatters of a few rows are read through: results equal NumPy's, indices out of range included."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from tvm import relax, tirx
from tvm.relax import op

from tests.passes.modules import build, operators, random, run
from tests.passes.virtual.test_virtualize import kernels, virtual

N = tirx.Var("n", "int64")
POSITIONS = ([0, 3], [3, 3], [-1, 2], [9, 1], [-9, -6])


@pytest.mark.parametrize("n", [6, N], ids=str)
def test_rows_of_a_cache(n: Any) -> None:
    """The last of two updates of one row counts; what points outside is left out."""

    def body(bb: relax.BlockBuilder, cache: relax.Var, at: relax.Var, rows: relax.Var) -> Any:
        return op.permute_dims(bb.emit(op.scatter_nd(cache, at, rows, "update")), [1, 0, 2])

    inputs = [("x", (n, 2, 4), "float32"), ("at", (2, 1), "int64"), ("rows", (2, 2, 4), "float32")]
    after = virtual(build(inputs, body))
    assert kernels(after) == ["scatter_nd_permute_dims"]
    cache, rows = random(6, 2, 4), random(2, 2, 4, seed=1)
    for at in POSITIONS:
        expected = cache.copy()
        for position, row in zip(at, rows):
            if -6 <= position < 6:
                expected[position] = row
        (result,) = run(after, cache, np.array(at)[:, None], rows)
        assert (result == expected.transpose(1, 0, 2)).all(), at


def test_elements_along_an_axis() -> None:
    def body(bb: relax.BlockBuilder, x: relax.Var, at: relax.Var, new: relax.Var) -> Any:
        return op.exp(bb.emit(op.scatter_elements(x, at, new, 1, "update")))

    inputs = [("x", (3, 5), "float32"), ("at", (3, 2), "int64"), ("new", (3, 2), "float32")]
    after = virtual(build(inputs, body))
    assert operators(after)["relax.scatter_elements"] == 0
    x, new = random(3, 5), random(3, 2, seed=1)
    at = np.array([[4, 0], [-1, -5], [2, 2]])
    expected = x.copy()
    for row in range(3):
        expected[row, at[row]] = new[row]
    (result,) = run(after, x, at, new)
    np.testing.assert_allclose(result, np.exp(expected), rtol=1e-6)


@pytest.mark.parametrize("reduction", ["update", "add"])
def test_others_stay(reduction: str) -> None:
    """Many rows, and updates that add to what is there."""
    count = 9 if reduction == "update" else 1

    def body(bb: relax.BlockBuilder, x: relax.Var, at: relax.Var, rows: relax.Var) -> Any:
        return op.exp(bb.emit(op.scatter_nd(x, at, rows, reduction)))

    inputs = [("x", (9, 4), "float32"), ("at", (count, 1), "int64"), ("r", (count, 4), "float32")]
    assert operators(virtual(build(inputs, body)))["relax.scatter_nd"] == 1
