"""Axes joined into one wherever every access moves as if they were, and loops over them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from tvm import sym, tirx
from tvm.ir import Expr, Var
from tvm.tirx import ForKind, Stmt

from . import loops
from .access import mergeable
from .analysis import Axis, constant
from .loops import int64, sequence
from .stages import Stage


@dataclass(frozen=True, eq=False)
class Group:
    """Adjacent axes walked as one, and their joint extent."""

    axes: tuple[Axis, ...]
    extent: Expr

    def at(self, index: Expr) -> dict[Var, Expr]:
        """What each axis is at an index of the group."""
        return spread(self.axes, [range(len(self.axes))], [index])


def merged(stage: Stage, axes: Sequence[Axis]) -> list[Group]:
    """Axes of a stage, joined where possible."""
    groups = ([axes[p] for p in group] for group in joined([stage], [axes]))
    return [Group(tuple(g), product(axis.extent for axis in g)) for g in groups]


def joined(stages: Sequence[Stage], axes: Sequence[Sequence[Axis]]) -> list[list[int]]:
    """Positions of axes (one list of axes per stage), those together that all stages may join."""
    groups: list[list[int]] = []
    for position in range(len(axes[0])):
        before = groups[-1][-1] if groups else None
        if before is not None and all(
            mergeable(stage, own[before], own[position]) for stage, own in zip(stages, axes)
        ):
            groups[-1].append(position)
        else:
            groups.append([position])
    return groups


def spread(
    axes: Sequence[Axis], groups: Sequence[Sequence[int]], indices: Sequence[Expr]
) -> dict[Var, Expr]:
    """What each axis is at an index per group.

    The last axis of a group runs on past its extent, which every access takes: it is linear.
    """
    values = {axis.var: int64(0) for axis in axes}
    return values | {axes[group[-1]].var: index for group, index in zip(groups, indices)}


def product(extents: Iterable[Expr]) -> Expr:
    """The product of some extents, simplified."""
    total: Expr = int64(1)
    for extent in extents:
        total = total * extent
    return sym.Analyzer().simplify(total)


def fused(extents: Sequence[Expr], body: Callable[[tuple[Expr, ...]], Stmt], kind: ForKind) -> Stmt:
    """One loop over the product of `extents`; `body` takes the index along each."""
    return loops.loop(product(extents), lambda row: body(unfused(extents, row)), kind, "row")


def unfused(extents: Sequence[Expr], row: Expr) -> tuple[Expr, ...]:
    """The index along each of `extents` of the one along their product.

    None is negative, so that divisions by what is not a constant may truncate: TVM writes a floored
    one out as a case of signs, once in every other that it is part of.
    """
    indices = []
    for extent in reversed(extents[1:]):
        if constant(extent) == 0:  # nothing runs
            return (int64(0),) * len(extents)
        known = constant(extent) is not None
        indices.append((tirx.floormod if known else tirx.truncmod)(row, extent))
        row = (tirx.floordiv if known else tirx.truncdiv)(row, extent)
    return (row, *reversed(indices))


def tiles(
    extent: Expr,
    width: int,
    lanes: int,
    body: Callable[[Expr, int], Stmt],
    kind: ForKind = ForKind.SERIAL,
) -> Stmt:
    """``body(base, width)`` over 0 .. extent-1 in tiles of `width`, then narrower ones, exactly."""
    size = constant(extent)
    steps = [width, lanes] if size is not None else [width, lanes, 1]
    parts, start = [], int64(0)
    for step in dict.fromkeys(steps):
        count = tirx.floordiv(extent - start, int64(step))
        if constant(count) != 0:

            def tile(number: Expr, start: Expr = start, step: int = step) -> Stmt:
                return body(number * step + start, step)

            parts.append(loops.loop(count, tile, kind if step == width else ForKind.SERIAL))
        start = tirx.floordiv(extent, int64(step)) * step
    if size is not None and size % lanes:
        parts.append(body(int64(size - size % lanes), size % lanes))
    return sequence(parts)
