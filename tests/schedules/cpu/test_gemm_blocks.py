"""In which order tiles pass over panels, by what fits the caches."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from tvm import relax

from tests.schedules.cpu.kernels import ARCH, normal
from tests.schedules.cpu.products import compare, schedule
from tvmext.arch import CpuArch
from tvmext.schedules.cpu.gemm import Decision

op = relax.op
SMALL = replace(ARCH, l2_bytes=64 << 10)
COLS, DEPTH = 600, 8
NEAR = SMALL.l2_bytes // (4 * COLS)
"""Rows whose results fit L2."""


def decided(m: Any, k: int, n: int, arch: CpuArch = SMALL) -> Decision:
    shapes = ((m, k), "float32"), ((k, n), "float32")
    _, _, selection = schedule(op.matmul, *shapes, weights=[1], arch=arch)
    assert isinstance(selection.decision, Decision)
    return selection.decision


def test_results_beyond_l2_are_stored_row_after_row() -> None:
    assert decided(NEAR, DEPTH, COLS).block_tiles == 0
    assert decided(NEAR + 1, DEPTH, COLS).block_tiles == 1
    free = decided("m", DEPTH, COLS)
    assert free.near_rows == NEAR and free.block_tiles > 1


def test_panel_after_panel_otherwise() -> None:
    narrow, few, far = (DEPTH, 96), (DEPTH, 512 - 1), (64, COLS)
    for k, n in (narrow, few, far):  # many rows of a page; a weight beyond L2
        assert decided("m", k, n).near_rows == 0
        assert decided(1000, k, n).block_tiles != 1


@pytest.mark.parametrize("cores", [1, 2])
@pytest.mark.parametrize("m", [0, 1, NEAR - 1, NEAR, NEAR + 1, 61])
def test_free_rows(m: int, cores: int) -> None:
    x, w, b = normal(m, DEPTH), normal(DEPTH, COLS, seed=1), normal(COLS, seed=2)

    def build(x: Any, w: Any, b: Any) -> Any:
        return op.tanh(op.add(op.matmul(x, w), b))

    dims = [("m", DEPTH), (DEPTH, COLS), (COLS,)]
    arch = replace(SMALL, cores=cores)
    compare(build, [x, w, b], np.tanh(x @ w + b), weights=[1], dims=dims, arch=arch, rule="gemm")


@pytest.mark.parametrize("m", [435, 436, 437, 450])
def test_tiles_that_products_share(m: int) -> None:
    x, w = normal(m, 128), normal(128, COLS, seed=1)
    arch, dims = replace(ARCH, l2_bytes=1 << 20), [("m", 128), w.shape]
    found = compare(op.matmul, [x, w], x @ w, weights=[1], dims=dims, arch=arch, rule="gemm")
    assert found.decision.shared and 0 < found.decision.near_rows < 450


@pytest.mark.parametrize("m", [NEAR + 1, 61])
def test_known_rows(m: int) -> None:
    x, w = normal(m, DEPTH), normal(DEPTH, COLS, seed=1)
    compare(op.matmul, [x, w], x @ w, weights=[1], arch=SMALL, rule="gemm")
