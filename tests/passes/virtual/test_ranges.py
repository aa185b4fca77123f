"""The sizes at which prices are compared: the range of every dim, or where it is to be fastest."""

from __future__ import annotations

import numpy as np
import pytest

from tvmext.frontends.dims import Dim
from tvmext.passes.virtual.ranges import MOST_POINTS, ranges


def test_fixed_sizes_are_one_point() -> None:
    assert ranges({}).weights.tolist() == [1.0] and not ranges({}).sizes


def test_a_ladder_over_the_range() -> None:
    found = ranges({"n": Dim("n"), "m": Dim("m", 3, 24)})
    assert sorted(set(found.sizes["n"])) == [1, 4, 16, 64, 256, 1024, 4096]
    assert {3, 24} <= set(found.sizes["m"]) and found.sizes["m"].min() == 3
    assert found.sizes["m"].max() == 24 and found.usual == {"n": 64, "m": 24}
    pairs = set(zip(found.sizes["n"], found.sizes["m"]))
    assert len(pairs) == len(found.weights) == 7 * len(set(found.sizes["m"]))
    assert np.ptp(found.weights) == 0


def test_where_it_is_to_be_fastest() -> None:
    """Only that size counts; the others are there to be looked at."""
    found = ranges({"n": Dim("n", 1, 100, opt=30), "m": Dim("m")})
    assert {1, 30, 100} <= set(found.sizes["n"])
    assert set(found.sizes["n"][found.weights > 0]) == {30}
    assert len(set(found.sizes["m"][found.weights > 0])) == 7


@pytest.mark.parametrize("count", [1, 2, 5, 12, 40])
def test_few_points_whatever_the_dims(count: int) -> None:
    found = ranges({f"n{k}": Dim(f"n{k}", 0, None if k % 2 else 9) for k in range(count)})
    assert all(len(sizes) == len(found.weights) for sizes in found.sizes.values())
    assert len(found.weights) <= MOST_POINTS
    assert found.weights.sum() == pytest.approx(1)


@pytest.mark.parametrize(
    "dim", [Dim("n", 0, 0), Dim("n", 5, 5), Dim("n", 9000, None), Dim("n", 0, 1, 0)]
)
def test_odd_ranges(dim: Dim) -> None:
    sizes = ranges({"n": dim}).sizes["n"]
    assert sizes.min() >= max(dim.low, 1)
    assert dim.high is None or sizes.max() <= max(dim.high, 1)
