"""What the rules for light kernels decide, as plain data."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class StagePlan:
    """How one stage is emitted inside its row.

    `mode` is "map" (elementwise), "transpose" (elementwise, tiles turned in registers),
    "interleave" (elementwise, results of several runs stored in turns), "lanes" or "columns"
    (reductions, see `reductions`) or "scalar". A vector has `lanes` elements and a step works on
    `unroll` vectors. `across` is the axis that a transpose reads along, as its position
    among the joined axes of the row, -1 for other modes.
    """

    mode: str
    lanes: int
    unroll: int = 1
    across: int = -1


@dataclass(frozen=True)
class NestPlan:
    """Stages, by number, under shared loops over rows.

    ``rows[s]`` lists, for stage `s`, the positions among its spatial axes that are the rows.
    `parallel` is "no", "rows" or "inner": which loop is spread over the cores. With symbolic dims
    the kernel decides when it runs: it is spread if its largest stage has `least_points` or more.
    Each stage works on `block` rows before the next one does.
    """

    stages: tuple[int, ...]
    rows: tuple[tuple[int, ...], ...]
    parallel: str
    plans: tuple[StagePlan, ...]
    least_points: int = 0
    block: int = 1
