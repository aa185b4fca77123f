"""Which variant of a kernel runs at which size, for people: the choice that kernels make when they
run (dispatch.py), made here for sizes 1 to `SCANNED`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tvmext.arch import CpuArch

from ..dispatch import Heights
from ..levels import UNKNOWN_COLS, UNKNOWN_DEPTH, UNKNOWN_ROWS
from . import gemm, winograd_choice
from .gemm_variants import prices_at

SCANNED = 512


@dataclass(frozen=True)
class Chosen:
    """The sizes, of `size` ("rows", "columns"), at which a variant is taken: (first, last)."""

    size: str
    variant: str
    spans: tuple[tuple[int, int], ...]


def chosen(workload: Any, decision: Any, arch: CpuArch) -> tuple[Chosen, ...]:
    """Nothing where there is but one variant. Of two unknown sizes the other is the usual one."""
    if isinstance(decision, gemm.Decision) and decision.others:
        return tuple(_products(workload, decision, arch))
    heights = getattr(decision, "heights", ())
    if len(heights) > 1:
        padded = isinstance(decision, winograd_choice.Decision)
        names = [f"tiles of {height}" for height, _ in heights]
        return tuple(_spans("rows", names, _of_heights(heights, padded)))
    return ()


def _products(work: gemm.Workload, decision: gemm.Decision, arch: CpuArch) -> Iterator[Chosen]:
    decisions = (decision, *decision.others)
    tiles = [(one.tile.rows, one.tile.vectors, one.tile.lanes, one.rhs) for one in decisions]
    names = [f"{rows}x{vectors}x{lanes} {rhs}" for rows, vectors, lanes, rhs in tiles]
    usual = (
        UNKNOWN_ROWS if work.rows is None else work.rows,
        UNKNOWN_COLS if work.cols is None else work.cols,
        UNKNOWN_DEPTH if work.reduce is None else work.reduce,
    )
    for place, (size, known) in enumerate((("rows", work.rows), ("columns", work.cols))):
        if known is None:
            sizes = [np.full(SCANNED, one) for one in usual]
            sizes[place] = _scanned()
            yield from _spans(size, names, prices_at(decisions, sizes, work.rhs, arch.fma_units))


def _of_heights(heights: Heights, padded: bool) -> list[np.ndarray]:
    """As kernel/choice.py has it."""
    sizes = _scanned()
    prices = []
    for height, price in heights:
        cost = -(-sizes // height) * float(price)
        prices.append(cost if padded else np.where(sizes < height, np.inf, cost))
    return prices


def _scanned() -> np.ndarray:
    return np.arange(1, SCANNED + 1)


def _spans(size: str, names: Sequence[str], prices: Sequence[np.ndarray]) -> Iterator[Chosen]:
    """The variant of the least price at each size, the first of equals, as runs of sizes."""
    taken = np.argmin(np.array(prices), axis=0)
    for number, name in enumerate(names):
        here = np.flatnonzero(taken == number) + 1
        runs = np.split(here, np.flatnonzero(np.diff(here) > 1) + 1)
        spans = tuple((int(run[0]), int(run[-1])) for run in runs if len(run))
        yield Chosen(size, name, spans)
