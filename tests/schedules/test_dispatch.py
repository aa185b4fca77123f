"""Which variants are kept for sizes that are known at run time only."""

from __future__ import annotations

import numpy as np

from tvmext.schedules.dispatch import FAR, bends, fewest, grid


def test_prices_are_compared_where_they_bend() -> None:
    found = bends([8], 0, 40)
    assert found == [1, 8, 9, 16, 17, 24, 25, 32, 33, 40]
    assert bends([8], 0, None)[-1] == FAR
    assert bends([8], 3, 3) == [3]
    assert all(7 <= size <= 50 for size in bends([6, 14], 7, 50))


def test_one_variant_is_enough_where_it_is_never_beaten() -> None:
    sizes = np.array(bends([4]))
    assert fewest([1, 2, 3], lambda factor: factor * sizes) == [1]


def test_a_variant_that_pays_somewhere_is_kept() -> None:
    (sizes,) = grid([bends([4])])
    prices = {"setup": 1000 + sizes, "none": 4 * sizes, "never": 9 * sizes + 5000}
    assert set(fewest(list(prices), prices.__getitem__)) == {"setup", "none"}


def test_what_is_nearly_as_good_is_left_out() -> None:
    (sizes,) = grid([bends([4])])
    prices = {"a": 1000 * sizes, "b": 1000 * sizes - 20 * (sizes % 2)}
    assert len(fewest(list(prices), prices.__getitem__)) == 1
