"""Weights in a new layout, element by element."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from tvm import tirx

from tvmext.schedules.layout import relayout
from tvmext.schedules.rule import Layout

MAPS = {
    "panels": (lambda k, n: (n // 4, k, n % 4), (5, 10), (3, 5, 4)),
    "transposed": (lambda n, k: (n // 4, k, n % 4), (10, 5), (3, 5, 4)),
    "reversed": (lambda o, y: (4 - y, o), (3, 5), (5, 3)),
    "unit": (lambda o, one, k: (0, k, o), (3, 1, 5), (1, 5, 3)),
    "two columns": (lambda k, a, b: ((a * 3 + b) // 4, k, (a * 3 + b) % 4), (5, 2, 3), (2, 5, 4)),
    "groups": (lambda o, k: (o // 6, o % 6 // 4, k, o % 6 % 4), (12, 5), (2, 2, 5, 4)),
}


@pytest.mark.parametrize("name", MAPS)
def test_every_element(name: str) -> None:
    function, shape, new_shape = MAPS[name]
    array = np.random.default_rng(0).standard_normal(shape).astype("float32")
    expected = np.zeros(new_shape, "float32")
    for at in np.ndindex(shape):
        expected[function(*at)] = array[at]
    result = relayout(array, Layout(_index_map(function, len(shape)), new_shape))
    np.testing.assert_array_equal(result, expected)
    assert result.flags.c_contiguous
    assert result.dtype == array.dtype


def _index_map(function: Callable[..., tuple[object, ...]], rank: int) -> tirx.IndexMap:
    dims = [tirx.Var(f"d{i}", "int64") for i in range(rank)]
    final = [tirx.const(e, "int64") if isinstance(e, int) else e for e in function(*dims)]
    return tirx.IndexMap(dims, final, None)
