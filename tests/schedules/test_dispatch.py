"""Which variants are kept for sizes that are known at run time only."""

from __future__ import annotations

import numpy as np
import pytest
import tvm
from tvm import te

from tvmext.schedules.cpu.rows import _looked_up
from tvmext.schedules.dispatch import (
    ENVELOPE,
    FAR,
    WORST,
    WORST_HEIGHT,
    bends,
    fewest,
    grid,
    mixed,
    mixture,
)
from tvmext.schedules.levels import FAR_CYCLES, STREAM_CYCLES, streamed_cycles


def mixed_price(heights, sizes: np.ndarray) -> np.ndarray:
    """The price of each number of rows: tiles of the highest first, then what `mixed` has."""
    top, price = heights[0]
    prices = [sum(n * cost for n, (_, cost) in zip(some, heights)) for some in mixed(heights)]
    whole = np.maximum(sizes // top - 1, 0)
    return whole * price + np.array(prices)[sizes - whole * top]


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


@pytest.mark.parametrize("stream", [0.0, STREAM_CYCLES, FAR_CYCLES])
@pytest.mark.parametrize("depth", [32, 768])
@pytest.mark.parametrize("units", [1, 2])
@pytest.mark.parametrize("tile", [(8, 1), (8, 2), (6, 4), (1, 8)])
def test_mixtures_are_near_the_best_split_of_any_number_of_rows(
    tile: tuple[int, int], units: int, depth: int, stream: float
) -> None:
    rows, vectors = tile

    def price(height: int) -> float:
        return streamed_cycles(height, vectors, units, depth, stream)

    best = [0.0]
    for size in range(1, 4097):
        best.append(min(best[size - h] + round(price(h)) for h in range(1, min(rows, size) + 1)))
    heights = mixture(range(1, rows + 1), price)
    excess = mixed_price(heights, np.arange(1, 4097)) / np.array(best[1:])
    assert excess.min() >= 1 and excess.max() <= WORST_HEIGHT
    assert np.exp(np.log(excess).mean()) <= ENVELOPE
    assert np.exp(np.log(excess[: 2 * rows]).mean()) <= 1.05


def test_mixtures_cover_the_rows() -> None:
    heights = ((8, 81), (3, 32), (2, 23), (1, 21))
    assert [sum(n * h for n, (h, _) in zip(some, heights)) for some in mixed(heights)] == [
        *range(16)
    ]
    assert mixed(heights)[9] == (0, 3, 0, 0)
    assert mixed_price(heights, np.array([0, 9, 25])).tolist() == [0, 96, 2 * 81 + 96]


def test_the_last_tile_goes_on_past_the_rows_where_none_has_one() -> None:
    heights = mixture([*range(2, 9), 14], lambda height: 100.0 * height + 50, worst=WORST)
    covered = [sum(n * h for n, (h, _) in zip(some, heights)) for some in mixed(heights)]
    assert len(covered) == 28 and covered[0] == 0
    assert all(0 <= have - rows < heights[0][0] for rows, have in enumerate(covered))
    every = tuple((height, 100 * height + 50) for height in (14, *range(8, 1, -1)))
    sizes = np.arange(1, 127)
    excess = mixed_price(heights, sizes) / mixed_price(every, sizes)
    assert excess.min() >= 1 and excess.max() <= WORST and len(heights) < len(every)


@pytest.mark.parametrize("count", [1, 16, 17, 28])
def test_tables(count: int) -> None:
    numbers = [n * 7 % 16 for n in range(count)]
    table = te.compute((count,), lambda place: _looked_up(numbers, place))
    out = tvm.runtime.tensor(np.zeros(count, "int64"))
    tvm.compile(te.create_prim_func([table]), "llvm")(out)
    assert out.numpy().tolist() == numbers


def test_heights_that_do_not_pay_are_left_out() -> None:
    """Tiles that wait for nothing need few heights, those that wait for memory every one."""
    free = mixture(range(1, 9), lambda height: 100.0 * height + 1)
    bound = mixture(range(1, 9), lambda height: 800.0 + height)
    assert [height for height, _ in free] == [8, 1]
    assert [height for height, _ in bound] == [*range(8, 0, -1)]
