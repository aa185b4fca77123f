"""Features against values computed by hand, and their speed in principle: one pass of NumPy."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from tvmext.arch import FAMILIES
from tvmext.schedules.cost.features import FEATURES, NAMES, features
from tvmext.schedules.cost.terms import FIELDS, Terms, machine


def value(name: str, terms: Terms) -> list[float]:
    return features(terms)[:, NAMES.index(name)].tolist()


PRODUCT = Terms.of(
    **{**machine(FAMILIES["x86-64-v4"]), "units": 2},
    rows=100,
    cols=70,
    depth=256,
    pitch=1024,
    tile_rows=[8, 6],
    vectors=[2, 4],
    lanes=16,
    block=[0, 5],
    cycles=[2.0**20 - 1, 1.0],
)


@pytest.mark.parametrize(
    "name, expected",
    [
        ("is_gemm", [1, 1]),
        ("is_conv", [0, 0]),
        ("log_depth", [np.log2(257)] * 2),
        ("log_flops", [np.log2(2 * 100 * 70 * 256)] * 2),
        ("intensity", [np.log2(2 * 100 * 70 * 256 / (4 * (25600 + 17920 + 7000)))] * 2),
        ("chains", [16, 24]),
        ("registers_used", [19 / 32, 29 / 32]),
        ("loads_per_fma", [10 * 2 / 32, 10 * 2 / 48]),
        ("latency", [8 / 16, 8 / 24]),
        ("tiles", [np.log2(13), np.log2(17)]),
        ("panels", [np.log2(3), np.log2(2)]),
        ("row_fill", [100 / 104, 100 / 102]),
        ("lowest", [7, 5]),
        ("col_fill", [70 / 96, 70 / 128]),
        ("ragged", [6, 6]),
        # Rows 1024 bytes apart: four sets of L1, of 7 ways beside the one for what passes by.
        ("conflicts", [8 / 28, 6 / 28]),
        ("tile_in_l1", [np.log2(8 * 1024 / 32768), np.log2(6 * 1024 / 32768)]),
        ("panel_in_l2", [np.log2(32 * 1024 / 2**20), np.log2(64 * 1024 / 2**20)]),
        ("block_in_l2", [np.log2(13 * 8192 / 2**20), np.log2(5 * 6144 / 2**20)]),
        ("panel_reuse", [np.log2(13), np.log2(5)]),
        ("log_cycles", [20, 1]),
        ("narrow", [1, 1]),
    ],
)
def test_values(name: str, expected: list[float]) -> None:
    np.testing.assert_allclose(value(name, PRODUCT), expected, rtol=1e-6)


NORM = Terms.of(
    **machine(FAMILIES["x86-64-v4"]),
    family=[5, 5, 6, 0],
    rows=40,
    cols=[153, 1, 1, 153],
    depth=[1, 153, 153, 1],
    lanes=[16, 16, 8, 16],
    unroll=[4, 1, 1, 4],
    map_lanes=[16, 8, 8, 0],
    block=[0, 4, 1, 4],
)
"""Rows of 153: as the stage that writes them, as one that sums them up; a product has none."""


@pytest.mark.parametrize(
    "name, expected",
    [
        ("row_vectors", [np.log2(10), np.log2(10), np.log2(20), 0]),
        ("whole_vectors", [np.log2(10), np.log2(37), np.log2(20), 0]),
        ("left_over", [25 / 16, 9 / 16, 1 / 8, 0]),
        ("row_steps", [np.log2(153 / 64), np.log2(153 / 16), np.log2(153 / 8), 0]),
        ("map_left_over", [9, 1, 1, 0]),
    ],
)
def test_values_of_rows(name: str, expected: list[float]) -> None:
    np.testing.assert_allclose(value(name, NORM), expected, rtol=1e-6)


ACROSS = Terms.of(
    **machine(FAMILIES["x86-64-v4"]),
    rows=10,
    cols=40,
    depth=24,
    tile_rows=[7, 7, 12],
    vectors=[2, 1, 4],
    lanes=[8, 16, 16],
    rhs=[2, 2, 0],
    packs=[1, 1, 0],
    epilogue=2,
    cycles=[3 * 2 * 64.0, 1, 1],
)
"""Columns that lie apart: packed in squares of 8 and of 16, what is left one by one; a weight."""


@pytest.mark.parametrize(
    "name, expected",
    [
        ("highest", [5, 5, 10]),
        ("chains", [10, 5, 30]),
        ("last_vectors", [1, 1, 3]),
        ("panel_fill", [1, 40 / 48, 40 / 64]),
        ("packed_turned", [np.log2(960 / 1200 + 2**-12), np.log2(512 / 600 + 2**-12), -12]),
        ("packed_singly", [-12, np.log2(448 / 600 + 2**-12), -12]),
        ("depth_over", [0, 8, 0]),
        ("stores", [np.log2(3 / 24)] * 3),
        ("tile_steps", [np.log2(n * 24) for n in (10, 5, 30)]),
        ("tile_cycles", [6, np.log2(1 / 6), 0]),
        ("out_panel_in_l1", [np.log2(4 * 10 * n / 32768) for n in (16, 16, 64)]),
    ],
)
def test_values_of_products_that_are_packed(name: str, expected: list[float]) -> None:
    np.testing.assert_allclose(value(name, ACROSS), expected, rtol=1e-6)


def test_every_feature_is_finite_where_sizes_are_nothing() -> None:
    nothing = Terms.of(**{name: [0.0, 1.0] for name in FIELDS})
    sane = {"cores": 1, "l1": 1, "l2": 1, "l3": 1, "registers": 1, "vector_bits": 128, "ghz": 1}
    with np.errstate(divide="raise", invalid="raise"):
        for terms in (Terms.of(), Terms.of(**{**nothing.columns, **sane, "dram": 1})):
            assert np.isfinite(features(terms)).all()


def test_the_table_is_complete() -> None:
    assert len(set(NAMES)) == len(FEATURES)
    assert all(feature.unit and feature.formula for feature in FEATURES)
    assert all(field.unit and field.meaning for field in FIELDS.values())


def test_terms_refuse_what_does_not_fit() -> None:
    with pytest.raises(ValueError, match="no such terms: roses"):
        Terms.of(roses=1)
    with pytest.raises(ValueError, match="columns of"):
        Terms.of(rows=[1, 2], cols=[1, 2, 3])


def test_joined_terms_are_those_of_the_parts() -> None:
    both = Terms.joined([PRODUCT, Terms.of(rows=3)])
    assert both.count == 3
    assert both.column("rows").tolist() == [100, 100, 3]
    assert both.column("depth").tolist() == [256, 256, 1]


def test_prices_need_no_tvm() -> None:
    check = "import sys, tvmext.schedules.cost.weights; assert 'tvm' not in sys.modules"
    subprocess.run([sys.executable, "-c", check], check=True, timeout=60)
