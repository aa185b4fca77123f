"""Packed weights that the warpgroup which brings them unpacks, for products of warpgroups."""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tests.schedules.cpu.kernels import normal
from tests.schedules.packed import product, weight
from tvmext.schedules.cuda import mma_choice
from tvmext.schedules.cuda.mma_choice import ByRows
from tvmext.schedules.cuda.wgmma import Wgmma
from tvmext.schedules.cuda.wgmma_choice import Decision

from .device import IS_GPU
from .kernels import ORDERS, machine_code, runs, scheduled
from .test_wgmma import HOPPER, applied

pytestmark = pytest.mark.skipif(not HOPPER.has_wgmma, reason="this GPU has no wgmma")
SMALL = Decision(64, 32, 64, 1, 3)


def inputs(arrays: Any, depth: int, rows: int) -> tuple[dict[str, np.ndarray], np.ndarray]:
    packed, real = arrays
    x = normal(2, rows, depth).astype("float16")
    given = {f"x{i}": a for i, a in enumerate((x, *packed.arrays))}
    return given, x.astype("float64") @ real * 2 + x[:, :, :1]


def close(result: np.ndarray, exact: np.ndarray) -> bool:
    return np.allclose(result, exact, rtol=1e-2, atol=1e-2 * np.abs(exact).max())


@pytest.mark.parametrize(
    ("bits", "columns", "block", "decision"),
    [
        (4, 72, 32, SMALL),
        (8, 40, 64, replace(SMALL, stages=2)),
        (2, 37, 16, Decision(128, 64, 64, 2, 2)),
        (4, 70, 64, Decision(128, 32, 64, 1, 2, splits=2)),
        (4, 100, 32, replace(SMALL, stream=5)),
    ],
)
def test_tiles(bits: int, columns: int, block: int, decision: Decision) -> None:
    """Every width of a number, edges on all sides; steps of several blocks and parts of one."""
    made = weight(bits, 320 if block < 64 else 256, columns, block)
    given, exact = inputs(made, len(made[1]), 75)
    function = applied(product(made[0], 75, "float16"), decision)
    for (result,) in runs(function, [(given, order) for order in ORDERS], arch=HOPPER):
        assert close(result, exact)


def test_free_rows() -> None:
    made = weight(4, 128, 40)
    few = mma_choice.Decision(32, 32, 32, 16, 16, 2)
    function = applied(product(made[0], "n", "float16"), ByRows(20, few, SMALL))
    cases = [inputs(made, 128, rows) for rows in (0, 3, 33, 70)]
    results = runs(function, [(given, 7) for given, _ in cases], arch=HOPPER)
    for (_, exact), (result,) in zip(cases, results, strict=True):
        assert result.shape == exact.shape
        assert not exact.size or close(result, exact)


MISSING = {
    "numbers told to products": ("tvmext_fence_proxy", 1),
    "arrivals of threads": ("tvmext_barrier_arrive", 1),
    "the producer's wait for an empty stage": ("tvmext_barrier_wait", 1),
}
"""{what: (call, the how manieth)}"""


@pytest.mark.skipif(IS_GPU, reason="code is not mutated on a GPU")
@pytest.mark.parametrize("what", MISSING)
def test_what_is_missing_is_noticed(what: str) -> None:
    name, number = MISSING[what]
    made = weight(4, 512, 32)
    given, exact = inputs(made, 512, 32)
    function = applied(product(made[0], 32, "float16"), replace(SMALL, stages=2))

    def without(code: str) -> str:
        calls = [m.span() for m in re.finditer(rf"^ +{name}\w*\(.*\);\n", code, re.M)]
        start, end = calls[number]
        return code[:start] + code[end:]

    orders = (1, 0, *range(7, 15))
    results = runs(function, [(given, order) for order in orders], without, HOPPER)
    with suppress(RuntimeError):  # the emulator's word for what must not be
        assert not all(close(result, exact) for (result,) in results)


def test_choice() -> None:
    """Many rows have it, few and float32 do not."""
    packed, _ = weight(4, 1024, 1024)
    many = scheduled(product(packed, 2048, "float16"), HOPPER)[1]
    assert many.rule == "wgmma"
    assert isinstance(many.decision, Decision)
    assert scheduled(product(packed, 8, "float16"), HOPPER)[1].rule == "mma"
    exact = scheduled(product(packed, 2048), HOPPER, tf32=True)[1]
    assert exact.rule == "mma"
    sizes = Wgmma(HOPPER).mma.match(product(packed, 2048, "float16")).sizes  # type: ignore[union-attr]
    assert sizes.unpacks
    plain = replace(sizes, unpacks=False)
    tile = mma_choice.Decision(128, 128, 64, 64, 64, 3)
    assert mma_choice.price(sizes, tile, HOPPER) > mma_choice.price(plain, tile, HOPPER)


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_machine_code(bits: int) -> None:
    """The largest tile: products of warpgroups, stores of 16 bytes, no register in memory."""
    made = product(weight(bits, 1024, 512)[0], 512, "float16")
    words = machine_code(applied(made, Decision(128, 256, 64, 2, 3)), HOPPER)
    assert {"HGMMA.64x256x16.F32", "STS.128"} <= words, words
    assert any(word.startswith("UTMALDG") for word in words)
    assert not {word for word in words if word.startswith(("LDL", "STL", "HMMA"))}
