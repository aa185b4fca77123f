"""The parts of a network in which data is moved, before and after, as graphs to draw.

Movement operators that follow one another, or that one kernel does now, are one region. It is drawn
with what it reads and what reads it. Regions that look alike, such as those of a transformer's
layers, are drawn once.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from .step import VIEW, Step

if TYPE_CHECKING:
    from .trace import Network, Outcome

MOST_OPERATORS = 32
"""A region does not grow across kernels beyond this: nobody would see anything."""

MOVEMENT, COMPUTE, VIEWED, MOVING, OUTSIDE = "movement", "compute", "view", "moving", "outside"


@dataclass(frozen=True)
class Box:
    """A node of a drawing; `kind` is one of the above, OUTSIDE for inputs and outputs of main.

    `label` says what it computes, `detail` what movement it takes along, `title` its whole name.
    """

    label: str
    detail: str
    shape: str
    kind: str
    title: str = field(default="", compare=False)


@dataclass(frozen=True)
class Drawing:
    """A graph: boxes and the pairs of them that an arrow joins."""

    boxes: tuple[Box, ...]
    arrows: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Region:
    """A region, or several that look alike: `nodes` names the movement operators of each."""

    before: Drawing
    after: Drawing
    nodes: tuple[tuple[str, ...], ...]
    operators: int
    kernels_left: int


def regions_of(
    net: Network,
    movement: frozenset[int],
    outcome: Outcome,
    origins: Sequence[frozenset[int]],
) -> tuple[Region, ...]:
    """The regions of a network, those with the most operators first."""
    alike: dict[tuple[Drawing, Drawing], Region] = {}
    for members in _components(net, movement, origins):
        region = _region(net, movement, outcome, origins, members)
        key = region.before, region.after
        known = alike.get(key)
        alike[key] = replace(known, nodes=known.nodes + region.nodes) if known else region
    return tuple(sorted(alike.values(), key=lambda region: -region.operators * len(region.nodes)))


def _components(
    net: Network, movement: frozenset[int], origins: Sequence[frozenset[int]]
) -> list[frozenset[int]]:
    """Movement operators, joined where one reads another, then where a kernel does both."""
    home = {k: {k} for k in movement}

    def join(a: int, b: int, most: float) -> None:
        if home[a] is not home[b] and len(home[a]) + len(home[b]) <= most:
            home[a] |= home[b]
            for k in home[b]:
                home[k] = home[a]

    for k in sorted(movement):
        for reader in net.readers[k] & movement:
            join(k, reader, float("inf"))
    for inside in origins:
        first, *others = sorted(inside & movement) or [0]
        for other in others:
            join(first, other, MOST_OPERATORS)
    unique = {id(members): frozenset(members) for members in home.values()}
    return sorted(unique.values(), key=min)


def _region(
    net: Network,
    movement: frozenset[int],
    outcome: Outcome,
    origins: Sequence[frozenset[int]],
    members: frozenset[int],
) -> Region:
    after = [k for k, inside in enumerate(origins) if inside & members]
    inside = members.union(*(origins[k] for k in after))
    relaid = [k for k, step in enumerate(outcome.steps) if not origins[k] and _reads(step, after)]
    names = tuple(_name(net, k) for k in sorted(members))
    return Region(
        _drawing(net.steps, inside, lambda k: _operator(net, movement, k)),
        _drawing(
            outcome.steps,
            {*after, *relaid},
            lambda k: _compiled(net, movement, outcome, origins[k], k),
        ),
        (names,),
        len(members),
        sum(k in outcome.left for k in after),
    )


def _operator(net: Network, movement: frozenset[int], k: int) -> Box:
    step = net.steps[k]
    kind = MOVEMENT if k in movement else COMPUTE
    return Box(_short(step.what), "", step.shape, kind, _name(net, k))


def _compiled(
    net: Network, movement: frozenset[int], outcome: Outcome, inside: frozenset[int], k: int
) -> Box:
    """A kernel by the operators that it stands for, or by its name if it stands for none."""
    step = outcome.steps[k]
    moved = " · ".join(dict.fromkeys(_short(net.steps[n].what) for n in sorted(inside & movement)))
    computed = " · ".join(
        dict.fromkeys(_short(net.steps[n].what) for n in sorted(inside - movement))
    )
    if step.kind == VIEW:
        return Box("view", moved, step.shape, VIEWED, step.what)
    if k in outcome.left:
        return Box(moved or _short(step.what), "copies", step.shape, MOVING, step.what)
    through = f"moves by index: {moved}" if moved else ""
    return Box(computed or _short(step.what), through, step.shape, COMPUTE, step.what)


def _reads(step: Step, steps: Iterable[int]) -> bool:
    return step.kind == VIEW and any(source in steps for source, _ in step.reads)


def _name(net: Network, number: int) -> str:
    node = net.node(number)
    return node.name if node else net.steps[number].what


def _drawing(steps: Sequence[Step], inside: Iterable[int], box: Callable[[int], Box]) -> Drawing:
    """The steps inside, with those around them."""
    inside = set(inside)
    around = {source for k in inside for source, _ in steps[k].reads}
    around |= {k for k, step in enumerate(steps) if any(s in inside for s, _ in step.reads)}
    order = sorted(inside | around)
    number = {k: position for position, k in enumerate(order)}
    boxes = [box(k) for k in order]
    arrows = [
        (number[source], number[k])
        for k in order
        for source in dict.fromkeys(source for source, _ in steps[k].reads)
        if source in number and (k in inside or source in inside)
    ]
    for k in sorted(inside):
        for name in steps[k].inputs:
            boxes.append(Box(name, "", "", OUTSIDE))
            arrows.append((len(boxes) - 1, number[k]))
        if steps[k].outputs:
            boxes.append(Box("output", "", "", OUTSIDE))
            arrows.append((number[k], len(boxes) - 1))
    return Drawing(tuple(boxes), tuple(arrows))


def _short(what: str) -> str:
    """A name without the number that tells it from its like."""
    return re.sub(r"(?<=[a-z])\d+$", "", what.removeprefix("nn."))
