"""A long reduction cut into parts for several blocks, and what adds the parts up.

    out[r] = sum_k f(r, k)     =     part[r, p] = sum over the k of p of f(r, k)
                                     out[r] = sum_p part[r, p]                  a launch of its own

The k of a part follow each other where the threads of a row read along it. Where neighbouring
threads have neighbouring rows, parts take turns: few rows and the parts of them then lie side by
side in memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import ceil, inf, prod
from typing import Protocol

from tvm import sym, tirx
from tvm.ir import Expr, TensorLoad, Var

from tvmext.arch import CudaArch

from ..kernel.access import strides
from ..kernel.analysis import REDUCE, SPATIAL, Axis, collect, constant, variables
from ..kernel.emit import Size, ceildiv, index, known, least, most
from ..kernel.stages import Point, Stage, Write
from .reduce import joining
from .waves import LATENCY

LOADS = 4
"""Loads that a thread of a reduction has under way, about: loops are unrolled by the compiler."""
LAUNCH = 8 * LATENCY
"""Cycles of one more launch among others, some 3 us: a guess on the side of few launches."""
LEAST = 2048
"""Elements of a part at least, for a block of threads."""
RUN = 16
"""Elements that a thread reads at once at most (wide.py): 16 bytes of bytes."""


class Plan(Protocol):
    """A block of threads: `per_block` rows, `threads` on each."""

    @property
    def threads(self) -> int: ...
    @property
    def per_block(self) -> int: ...


@dataclass(frozen=True)
class Cuts:
    """Into how many parts each of some stages is cut, where rows are as long as `length` or more.

    `length` is 0 where that is known.
    """

    parts: tuple[int, ...]
    length: int


def plan_cuts(
    stages: Sequence[Stage], rows: Sequence[Axis], plan: Plan, arch: CudaArch
) -> Cuts | None:
    """The cuts of stages that share rows in one launch, if their blocks are few and rows long.

    A block that is alone on its multiprocessor waits for what it asks for, stage after stage:
    cut, that takes a part of the time, and a launch for each stage and for each of the joins.
    """
    reductions = [stage for stage in stages if stage.is_reduction]
    if any(axis.size is None for axis in rows) or not all(map(may_cut, reductions)):
        return None
    count = prod(axis.size or 0 for axis in rows)
    blocks, together = -(-count // plan.per_block), min(count, plan.per_block)
    parts = 2 * arch.sms // max(1, blocks)
    if parts < 2 or blocks == 0:
        return None
    launches = len(stages) - 1 + len(reductions)
    gain = len(stages) * LATENCY / (plan.threads * LOADS) * (1 - 1 / parts)
    least_length = max(2 * LEAST // together, ceil(launches * LAUNCH / gain))
    found = [
        _parts(stage, parts, least_length, together) if stage.is_reduction else 1
        for stage in stages
    ]
    if max(found) == 1:
        return None
    unknown = any(n > 1 and _length(stage) is None for n, stage in zip(found, stages))
    return Cuts(tuple(found), least_length if unknown else 0)


def _parts(stage: Stage, parts: int, least_length: int, rows: int) -> int:
    """Into how many parts to cut a reduction; those of a known length are alike if they can be."""
    length = _length(stage)
    if length is None:
        return parts
    if length < least_length:
        return 1
    size = longest(stage).size or 1
    parts = min(parts, length * rows // LEAST, size)
    return next((n for n in range(parts, parts // 2, -1) if size % n == 0), parts)


def _length(stage: Stage) -> int | None:
    sizes = [axis.size for axis in stage.reduce]
    return None if None in sizes else prod(size or 0 for size in sizes)


def longest(stage: Stage) -> Axis:
    """The axis of a reduction that is cut: one of unknown size, or the largest; of equal ones the
    first."""
    return max(stage.reduce, key=lambda axis: inf if axis.size is None else axis.size)


def may_cut(stage: Stage) -> bool:
    """Whether parts of the reduction can be found apart from each other."""
    inner = {axis.var for axis in stage.axes}
    return (
        bool(stage.reduce)
        and not stage.limits
        and joining(stage) is not None
        and not any(variables(axis.extent) & inner for axis in stage.axes)
        and not any(collect(axis.extent, TensorLoad) for axis in stage.axes)
    )


def contiguous(stage: Stage) -> bool:
    """Whether neighbours along a reduction are neighbours in memory."""
    if not stage.reduce:
        return False
    steps = strides(stage, stage.reduce[-1])[: len(stage.point.loads())]
    return any(s is not None and constant(s) in (1, -1) for s in steps)


def pieces(stage: Stage, parts: int) -> list[tuple[Stage, int]]:
    """A stage, or the two that it is cut into; with how many parts each finds."""
    if parts == 1:
        return [(stage, 1)]
    first, second = cut(stage, parts, contiguous(stage))
    return [(first, parts), (second, 1)]


def cut(stage: Stage, parts: int, along: bool) -> tuple[Stage, Stage]:
    """The stage that finds the parts, and the one that joins them into what `stage` gives.

    What is found has an axis more than what `stage` gives: the parts, innermost. `along`: the
    elements of a part follow each other, `part_length` of them.
    """
    axis = longest(stage)
    part = Axis(Var("part", axis.var.ty), tirx.const(parts, str(axis.var.ty.dtype)), SPATIAL)
    each = part_length(stage, parts, along)
    inner = Axis(Var(axis.var.name, axis.var.ty), _share(axis, part, parts, each, along), axis.kind)
    at = part.var * each + inner.var if along else inner.var * parts + part.var
    found = {write.buffer: _partial(write, stage, parts) for write in stage.writes}
    own = tuple(a.var for a in stage.spatial)

    def mine(load: TensorLoad) -> Expr:
        partial = found.get(load.source)
        return load if partial is None else partial[(*own, part.var)]

    first = Stage(
        f"{stage.name}_part",
        (part, *stage.spatial),
        tuple(inner if a is axis else a for a in stage.reduce),
        tuple(Write(found[w.buffer], (*own, part.var), w.op, w.init) for w in stage.writes),
        stage.point.at({axis.var: at}).map(mine),
    )
    every = Axis(Var("part", "int64"), index(parts), REDUCE)
    others = [found[write.buffer][(*own, every.var)] for write in stage.writes]
    join = joining(stage)
    if join is not None and not all(write.op for write in stage.writes):
        others = list(join([write.buffer[write.indices] for write in stage.writes], others))
    return first, replace(stage, reduce=(every,), point=Point((), tuple(others)))


def part_length(stage: Stage, parts: int, along: bool) -> Size:
    """Elements of a part along the axis that is cut, which the last ones may have fewer of.

    Where the row is read in runs, they begin at the same multiples in every part.
    """
    axis = longest(stage)
    run = RUN if along and axis is stage.reduce[-1] else 1
    return known(ceildiv(ceildiv(known(axis.extent), parts), run) * run)


def _share(axis: Axis, part: Axis, parts: int, each: Size, along: bool) -> Expr:
    """How many of `axis` a part has, `each` or, the last ones perhaps, fewer or none."""
    dtype = str(axis.var.ty.dtype)
    if isinstance(each, int) and axis.size == each * parts:
        return tirx.const(each, dtype)
    if along:
        own = most(least(each, axis.extent - part.var * each), 0)
    else:
        own = known(tirx.floordiv(axis.extent - part.var + (parts - 1), parts))
    return sym.Analyzer().simplify(index(own))


def _partial(write: Write, stage: Stage, parts: int) -> Var:
    shape = [*(axis.extent for axis in stage.spatial), index(parts)]
    return tirx.decl_buffer(shape, str(write.buffer.ty.dtype), f"{write.buffer.name}_part")
