"""The sizes that a network may be run with, as arrays: prices over them are functions of the dims.

A price is a sum of products of dims, each piece of it at the speed of a level of memory. Between
sizes a small factor apart it changes little, so a ladder of such sizes along the range of each dim,
and every combination of its steps, shows where one choice is cheaper than another and by how much.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from tvmext.frontends.dims import Dim, usual_sizes

UNLIMITED = 4096
"""Where the ladder of a dim without an upper limit ends."""

MOST_STEPS, MOST_POINTS = 7, 4096
"""Of a ladder from 1 to 4096 each step is four times the last; of many dims there are fewer."""


@dataclass(frozen=True)
class Ranges:
    """Assignments of sizes: for each dim by its name, its size in every one of them.

    `weights` say how much each counts: all the same, but where the user said at which size a dim
    is to be fastest only that one. `usual` is one size of each dim, for what takes no arrays.
    """

    sizes: Mapping[str, np.ndarray] = field(default_factory=dict)
    weights: np.ndarray = field(default_factory=lambda: np.ones(1))
    usual: Mapping[str, int] = field(default_factory=dict)


def ranges(dims: Mapping[str, Dim]) -> Ranges:
    """All steps of all ladders combined; too many dims go up theirs together."""
    if not dims:
        return Ranges()
    apart = 2 ** len(dims) <= MOST_POINTS
    steps = min(MOST_STEPS, int(MOST_POINTS ** (1 / len(dims)))) if apart else MOST_STEPS
    ladders = [_ladder(dim, steps) for dim in dims.values()]
    if apart:
        grids = [grid.ravel() for grid in np.meshgrid(*ladders, indexing="ij")]
    else:
        grids = [np.resize(ladder, MOST_STEPS) for ladder in ladders]
    sizes = {name: grid.astype(float) for name, grid in zip(dims, grids)}
    counted = np.ones(len(grids[0]))
    for name, dim in dims.items():
        if apart and dim.opt is not None:
            counted *= sizes[name] == max(dim.opt, 1)
    return Ranges(sizes, counted / counted.sum(), usual_sizes(dims))


def _ladder(dim: Dim, steps: int) -> np.ndarray:
    """Sizes in equal ratios over the range of a dim, and the one that it is to be fastest at."""
    low = max(dim.low, 1)
    high = max(UNLIMITED, 16 * low) if dim.high is None else max(dim.high, low)
    found = {round(size) for size in np.geomspace(low, high, steps)}
    return np.array(sorted(found | ({max(dim.opt, 1)} if dim.opt is not None else set())))
