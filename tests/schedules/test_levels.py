"""Register tiles and their price."""

from __future__ import annotations

import pytest

from tvmext.schedules.levels import (
    Product,
    best_tile,
    product_cycles,
    register_tiles,
    rows_in_l1,
    widest,
)


@pytest.mark.parametrize("registers", [16, 32])
def test_candidates_leave_room_for_the_operands(registers: int) -> None:
    tiles = list(register_tiles(registers))
    assert 20 < len(tiles) < 100
    assert all(rows * vectors + vectors + 1 <= registers for rows, vectors in tiles)


def test_no_work_costs_nothing() -> None:
    for product in (Product(0, 64, 64), Product(64, 0, 64)):
        assert product_cycles(product, 8, 3, 16, 2) == 0


@pytest.mark.parametrize("rows", [8, 64, 128, 1000])
def test_within_a_tenth_of_peak_where_sizes_are_round(rows: int) -> None:
    product = Product(rows, 768, 768)
    tile = best_tile(product, 16, 32, 2)
    peak = rows * 768 * 768 / (16 * 2)
    assert product_cycles(product, *tile, 16, 2) < 1.1 * peak


def test_columns_are_not_padded_without_need() -> None:
    assert best_tile(Product(128, 16, 64), 16, 32, 2)[1] == 1
    assert best_tile(Product(128, 48, 64), 16, 32, 2)[1] in (1, 3)


def test_unknown_sizes_have_a_tile() -> None:
    rows, vectors = best_tile(Product(None, None, None), 8, 16, 2, max_rows=8)
    assert rows * vectors >= 8


def test_rows_that_compete_for_one_set_of_l1() -> None:
    assert rows_in_l1(4096, 32 << 10) == 7
    assert rows_in_l1(3072, 32 << 10) == 28
    assert rows_in_l1(2048, 48 << 10) == 22
    assert rows_in_l1(0, 32 << 10) == 7


def test_narrower_vectors_only_where_they_gain() -> None:
    assert widest([("full", 100.0), ("half", 96.0)]) == "full"
    assert widest([("full", 100.0), ("half", 80.0)]) == "half"
