"""Turns of the loop over a sum that take several steps: how many, and that no step is lost."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from tvm import relax

from tests.schedules.cpu.kernels import ARCH, normal
from tests.schedules.cpu.products import compare, convolve, schedule
from tests.schedules.cpu.test_attention import PLAIN, heads
from tests.schedules.cpu.test_attention import check as attend
from tests.schedules.cpu.test_conv import nhwc
from tvmext.arch import FAMILIES
from tvmext.schedules.cpu.functions import called_by
from tvmext.schedules.cpu.turns import CHAINS, hiding, turn

AVX2 = FAMILIES["x86-64-v3"]
NEAR = replace(AVX2, l2_bytes=1 << 14)
"""So small an L2 that weights are fetched ahead."""

runs_here = pytest.mark.skipif(ARCH.isa != "x86_64", reason="runs code for x86")


@pytest.mark.parametrize(
    "tile, steps, whole, expected",
    [
        ((6, 2), 768, False, 4),
        ((6, 2), None, False, 4),
        ((6, 2), 7, False, 1),  # of two turns one would not be whole
        ((6, 2), 48, True, 4),
        ((6, 2), 18, True, 3),
        ((6, 2), 7, True, 1),
    ],
)
def test_steps_of_a_turn(
    tile: tuple[int, int], steps: int | None, whole: bool, expected: int
) -> None:
    assert turn(*tile, steps, CHAINS, whole=whole) == expected


def test_products_that_take_longer_than_their_instructions() -> None:
    """One unit: 24 products are 24 cycles, in which half of a core begins 72 instructions."""
    assert turn(8, 3, 768, hiding(per_cycle=1)) == 1


@runs_here
@pytest.mark.parametrize("arch", [AVX2, NEAR], ids=["near", "ahead"])
@pytest.mark.parametrize("k", [5, 8, 9, 130, 131, 160])
@pytest.mark.parametrize("rows", [13, "m"])
def test_products(rows: int | str, k: int, arch: object) -> None:
    x, w = normal(13, k), normal(k, 40, seed=1)
    compare(relax.op.matmul, [x, w], x @ w, weights=[1], dims=[(rows, k), w.shape], arch=arch)


@runs_here
@pytest.mark.parametrize("k", [0, 3, 4, 9, 131])
@pytest.mark.parametrize("m, n", [(6, 16), (17, 40), (64, 7)])
def test_products_of_two_results(m: int, n: int, k: int) -> None:
    """All sizes are known at run time only: the highest tiles take turns of several steps."""
    x, y = normal(m, k), normal(k, n, seed=1)
    compare(relax.op.matmul, [x, y], x @ y, dims=[("m", "k"), ("k", "n")], arch=AVX2)


@runs_here
@pytest.mark.parametrize("channels", [3, 8, 20, 33])
@pytest.mark.parametrize("size", [(9, 11), ("h", "w")])
def test_windows(size: tuple[int | str, int | str], channels: int) -> None:
    x, w = normal(1, 9, 11, channels), normal(24, 3, 3, channels, seed=1)
    dims = [(1, *size, channels), w.shape]
    expected = convolve(x, w, 1, 1)
    compare(nhwc(padding=1), [x, w], expected, weights=[1], dims=dims, arch=AVX2, tolerance=1e-4)


def test_a_turn_has_its_steps() -> None:
    """In the kernel's own tiles, and in those that products share."""

    def loops(script: str) -> set[str]:
        return set(re.findall(r"in range\(T.int64\((\d+)\)\)", script))

    shapes = ((12, 320), "float32"), ((320, 32), "float32")
    _, own, _ = schedule(relax.op.matmul, *shapes, weights=[1], arch=AVX2)
    assert "80" in loops(own.func.script()) and "320" not in loops(own.func.script())
    shapes = (("m", 320), "float32"), ((320, 32), "float32")
    _, shared, _ = schedule(relax.op.matmul, *shapes, weights=[1], arch=AVX2)
    (function,) = called_by([shared.func]).values()
    assert "range(steps // T.int64(4))" in function.script()


@runs_here
@pytest.mark.parametrize("keys", [3, 8, 61])
@pytest.mark.parametrize("depth", [16, 24, 70])
def test_attention(keys: int, depth: int) -> None:
    attend(PLAIN, heads(1, 2, 13, keys, depth), arch=AVX2)
