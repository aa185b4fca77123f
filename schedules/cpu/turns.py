"""How the loop over a sum is laid out: partial sums, and the steps of a turn. No TVM here."""

from __future__ import annotations

from math import ceil

from ..levels import FMA_LATENCY, LOADS

CHAINS = 8
"""Independent accumulators that hide the latency of an FMA: 4 cycles on 2 units."""

SLACK = 1
"""Accumulators beyond those that just hide the latency: four of four cycles were 8 % slower."""

SHORT = 4
"""Rounds over the partial sums below which steps are too few to have any left over."""

TURN = 4
"""Steps of a turn of the loop where one would be too few."""

BESIDE = 6
"""Instructions of a turn beside its products and their loads: the count of turns, two addresses."""

ISSUED = 3
"""Instructions that begin in a cycle, at the least: half of six where two threads share a core
(Zen 3; 28 instructions for 12 products of 256 bits had 0.8 to 0.9 of the speed of 22 there, and the
same alone), three of the four of cores before Ice Lake."""


def hiding(per_cycle: int) -> int:
    """Independent accumulators that hide the latency where so many FMAs begin in a cycle."""
    return min(CHAINS, FMA_LATENCY * per_cycle + SLACK)


def parts(rows: int, vectors: int, steps: int | None, chains: int, whole: bool = False) -> int:
    """How many partial sums each sum of a tile is kept in, over a last reduce axis of `steps`.

    Their number divides the steps if it then hides the latency, as `chains` of them do, or if it
    has to (`whole`); else what is left of the steps goes to the first ones.
    """
    sums = rows * vectors
    wanted = -(-chains // sums)
    divisor = max(n for n in range(1, wanted + 1) if n == 1 or (steps or 1) % n == 0)
    enough = ceil(FMA_LATENCY / max(sums * FMA_LATENCY / chains, (rows + vectors) / LOADS))
    short = steps is not None and steps < SHORT * enough
    return divisor if whole or short or divisor >= enough else enough


def turn(rows: int, vectors: int, steps: int | None, chains: int, whole: bool = False) -> int:
    """Steps of a turn of the loop over the sum of a tile, each in one partial sum.

    One, unless the instructions of a step take longer to begin than its products, of which as many
    begin in a cycle as `chains` of them hide the latency of; `whole` turns divide the steps.
    """
    sums, units = rows * vectors, max(1, chains // FMA_LATENCY)
    if (sums + rows + vectors + BESIDE) * units <= ISSUED * sums:
        return 1
    if whole and steps is not None:
        return next(n for n in range(TURN, 0, -1) if steps % n == 0)
    return TURN if steps is None or steps >= 2 * TURN else 1
