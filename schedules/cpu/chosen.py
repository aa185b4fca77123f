"""Which variant of a kernel runs at which size, for people: the choice that kernels make when they
run (dispatch.py), made here for sizes 1 to `SCANNED`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tvmext.arch import CpuArch

from ..dispatch import Heights, mixed
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
        return tuple(_spans("rows", names, _one_of(heights) if padded else _some_of(heights)))
    return ()


def _products(work: gemm.Workload, decision: gemm.Decision, arch: CpuArch) -> Iterator[Chosen]:
    decisions = [one for one in (decision, *decision.others) if not one.up_to]
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
            prices = prices_at(decisions, sizes, work.rhs, arch.fma_units)
            yield from _spans(size, names, _least(prices))


def _one_of(heights: Heights) -> list[np.ndarray]:
    """Where tiles of each height are taken, all tiles of a run being of one (kernel/choice.py)."""
    return _least([-(-_scanned() // height) * float(price) for height, price in heights])


def _some_of(heights: Heights) -> list[np.ndarray]:
    """Where some tile has each height, as rows.py has it."""
    top = heights[0][0]
    sizes = _scanned()
    rest = sizes - np.maximum(sizes // top - 1, 0) * top
    first, *others = np.array(mixed(heights))[rest].T > 0
    return [first | (sizes >= 2 * top), *others]


def _least(prices: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Where each price is the least, the first of equals."""
    taken = np.argmin(np.array(prices), axis=0)
    return [taken == number for number in range(len(prices))]


def _scanned() -> np.ndarray:
    return np.arange(1, SCANNED + 1)


def _spans(size: str, names: Sequence[str], taken: Sequence[np.ndarray]) -> Iterator[Chosen]:
    """The sizes at which each variant is taken, as runs of them."""
    for name, mask in zip(names, taken):
        here = np.flatnonzero(mask) + 1
        runs = np.split(here, np.flatnonzero(np.diff(here) > 1) + 1)
        spans = tuple((int(run[0]), int(run[-1])) for run in runs if len(run))
        yield Chosen(size, name, spans)
