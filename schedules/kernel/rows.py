"""Which axes of several stages are the same rows."""

from __future__ import annotations

from collections.abc import Sequence

from tvm.ir import Var

from .access import loads, stores
from .analysis import Axis, analyzer
from .stages import Stage

Rows = list[tuple[int, ...]]
"""Per stage, the positions of some of its spatial axes."""


def shared_rows(stages: Sequence[Stage]) -> Rows:
    """Positions, per stage, of the spatial axes that all stages walk together.

    An axis of one stage is the same row as an axis of another if the second reads the first's
    result at just that index. A row axis is never reduced over, and never read any other way.
    """
    parent: dict[Var, Var] = {a.var: a.var for stage in stages for a in stage.axes}

    def find(var: Var) -> Var:
        while not parent[var].same_as(var):
            var = parent[var]
        return var

    broken: set[Var] = {axis.var for stage in stages for axis in stage.reduce}
    homes = {w.buffer: (stage, w) for stage in stages for w in stores(stage)}
    for stage in stages:
        own = {axis.var: axis for axis in stage.axes}
        for load in loads(stage):
            if load.source not in homes or homes[load.source][0] is stage:
                continue
            producer, write = homes[load.source]
            made = {axis.var: axis for axis in producer.axes}
            for index, at in zip(write.indices, load.indices):
                if isinstance(at, Var) and at in own and isinstance(index, Var) and index in made:
                    parent[find(at)] = find(index)
                    if not _same_extent(own[at], made[index]):
                        broken.add(index)
                elif isinstance(index, Var) and index in made:
                    broken.add(index)
    bad = {find(var) for var in broken}
    members = [{find(a.var): p for p, a in enumerate(stage.spatial)} for stage in stages]
    unique = [len(m) == len(stage.spatial) for m, stage in zip(members, stages)]
    if not all(unique):
        return [() for _ in stages]
    common = set(members[0]).intersection(*members[1:]) - bad
    order = [find(a.var) for a in stages[-1].spatial if find(a.var) in common]
    return [tuple(m[root] for root in order) for m in members]


def _same_extent(a: Axis, b: Axis) -> bool:
    return bool(analyzer((a, b)).can_prove_equal(a.extent, b.extent))
