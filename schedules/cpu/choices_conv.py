"""What convolutions may decide: a window or Winograd's method, their tiles and blocks, groups."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import lru_cache

from tvmext.arch import CpuArch, dtype_bits

from ..cost.terms import Terms, machine
from ..kernel.analysis import variables
from ..kernel.contraction import Contraction
from ..levels import (
    UNKNOWN_COLS,
    UNKNOWN_DEPTH,
    UNKNOWN_SIDE,
    Product,
    product_cycles,
    rows_in_l1,
)
from . import conv_choice, winograd_choice
from .choices_gemm import FAR, MOST_TILES, VARIED, epilogue, fitting_tiles, nearest, tile_columns
from .conv import Conv, Decision, Workload, merged_groups
from .dots import find_dot
from .gemm import known_size, register_units
from .tile import Shape
from .winograd import FILTERS
from .winograd_tiles import Tiles, Windows

TALLEST = 14
"""Rows of a tile along pixels of a known width, as in conv_choice.py."""

PARALLEL = ("none", "blocks", "panels")


class ConvChoices:
    """Candidates of `Conv`, whose Winograd filters are `filters`."""

    def __init__(self, filters: Iterable[int] = (2,)) -> None:
        self.filters = tuple(filters)
        self.rule = Conv(self.filters)

    def candidates(self, workload: Workload, arch: CpuArch) -> list[Decision]:
        picked = self.rule.choose(workload, arch)
        found: list[Decision] = [picked]
        for factor in self._factors(workload, arch):
            work = merged_groups(workload, factor) if factor > 1 else workload
            found += (replace(one, merged=factor) for one in _direct(work.direct, arch))
            if work.windows is not None:
                plans = _plans(work.windows, self.filters, arch)
                found += (
                    replace(winograd_choice.decide(work.windows, plan, arch), merged=factor)
                    for plan in plans
                )
        return list(dict.fromkeys(found))

    def terms(self, workload: Workload, decisions: Sequence[Decision], arch: CpuArch) -> Terms:
        works = {1: workload}
        for factor in {one.merged for one in decisions} - {1}:
            works[factor] = merged_groups(workload, factor)
        parts = [_terms(works[one.merged], one, arch) for one in decisions]
        return Terms.joined(parts)

    def _factors(self, workload: Workload, arch: CpuArch) -> list[int]:
        if workload.groups is None:
            return [1]
        widths, *_ = register_units(workload.direct.dtype, None, None, arch)
        return sorted({1, *(workload.groups.factor(lanes) for lanes, _ in widths)})


def _direct(work: conv_choice.Workload, arch: CpuArch) -> Iterator[conv_choice.Decision]:
    """Sliding windows: tiles along a row of pixels or across rows, blocks, prefetching."""
    dot = find_dot(work.types, arch)
    widths, steps, registers = register_units(work.dtype, work.reduce, dot, arch)
    height, width = work.height or UNKNOWN_SIDE, work.width or UNKNOWN_SIDE
    row = Product(work.width, work.channels, steps)
    limit = min(TALLEST if work.width is not None else 8, rows_in_l1(work.pitch, arch.l1_bytes))
    priced = [
        (height * product_cycles(row, rows, vectors, lanes, units), Shape(rows, vectors, lanes))
        for lanes, units in widths
        for rows, vectors in fitting_tiles(row, registers, lanes, limit)
    ]
    tiles = [(shape, False) for shape in nearest(iter(priced))]
    if _may_be_flat(work):
        image = Product(height * width, work.channels, steps)
        joined = nearest(
            (product_cycles(image, rows, vectors, lanes, units), Shape(rows, vectors, lanes))
            for lanes, units in widths
            for rows, vectors in fitting_tiles(image, registers, lanes, 8)
        )
        tiles += [(shape, True) for shape in joined]
    for number, (shape, flat) in enumerate(tiles):
        one = conv_choice.blocked(work, shape, flat, dot, arch)
        yield one
        if number < VARIED:
            yield from _variants(work, one)


def _may_be_flat(work: conv_choice.Workload) -> bool:
    if work.width is None or work.height is None or work.height == 1:
        return False
    return work.width * work.height <= conv_choice.FLAT_PIXELS


def _variants(
    work: conv_choice.Workload, decision: conv_choice.Decision
) -> Iterator[conv_choice.Decision]:
    """The same tile with one of the other choices made differently."""
    if decision.ahead:
        yield replace(decision, ahead=0)
    height = work.height
    if decision.flat or height is None or decision.parallel == "blocks" or work.turned:
        return
    rows = decision.block_rows or height
    for count in {-(-rows // 2), -(-rows // 4)} - {0, rows}:
        tiles = count * -(-(work.width or UNKNOWN_SIDE) // decision.tile.rows)
        yield replace(decision, block_rows=count, ahead=tiles if decision.ahead else 0)


def _plans(found: Windows, filters: Iterable[int], arch: CpuArch) -> list[winograd_choice.Plan]:
    """Winograd's method with the tiles of the least price."""
    plans = [plan for step in filters for plan in winograd_choice.plans(found, step, arch)]
    plans.sort(key=lambda plan: plan.cycles)
    return [plan for plan in plans[: MOST_TILES // 2] if plan.cycles <= FAR * plans[0].cycles]


def _terms(workload: Workload, decision: Decision, arch: CpuArch) -> Terms:
    if isinstance(decision, conv_choice.Decision):
        return _direct_terms(workload.direct, decision, arch)
    assert workload.windows is not None
    return _winograd_terms(workload.windows, decision, arch)


def _direct_terms(
    work: conv_choice.Workload, decision: conv_choice.Decision, arch: CpuArch
) -> Terms:
    tile, dot = decision.tile, decision.dot
    height, width = work.height or UNKNOWN_SIDE, work.width or UNKNOWN_SIDE
    depth, taps = work.reduce or UNKNOWN_DEPTH, _taps(work.contraction)
    item = 1 if dot else dtype_bits(work.dtype) // 8
    sizes = (work.images, work.height, work.width, work.channels, work.reduce)
    return Terms.of(
        **tile_columns([tile]),
        **machine(arch, tile.lanes * dtype_bits(work.dtype)),
        family=1,
        batch=(work.images or 1) * (work.groups or 1),
        lines=1 if decision.flat else height,
        rows=height * width if decision.flat else width,
        cols=work.channels or UNKNOWN_COLS,
        depth=depth,
        taps=taps,
        pitch=work.pitch,
        stride=max(1, work.pitch // max(1, item * depth // taps)),
        row_bytes=work.row_bytes or 0,
        item=item,
        rhs=0 if work.weight_arg is not None else 2,
        staged=work.staged,
        epilogue=epilogue(work.contraction),
        free=sum(size is None for size in sizes),
        step=1 if dot is None else dot.step,
        packs=work.weight_arg is None,
        block=decision.block_rows,
        ahead=decision.ahead > 0,
        flat=decision.flat,
        merged=decision.merged,
        parallel=PARALLEL.index(decision.parallel),
        cycles=conv_choice.cycles(work, decision, arch) / (1 if dot is None else dot.step),
    )


def _winograd_terms(found: Windows, decision: winograd_choice.Decision, arch: CpuArch) -> Terms:
    channels, columns = found.sizes
    dims = len(found.bounds)
    tiles = Tiles(found, decision.step)
    points = FILTERS[decision.step].size ** dims
    groups = known_size(found.total.batch) or 1
    plan = next(
        p for p in winograd_choice.plans(found, decision.step, arch) if p.tile == decision.tile
    )
    return Terms.of(
        **tile_columns([decision.tile]),
        **machine(arch),
        family=2,
        batch=points * groups,
        rows=tiles.usual_count(),
        cols=columns,
        depth=channels,
        taps=3**dims,
        pitch=4 * channels,
        epilogue=epilogue(found.total),
        free=known_size(tiles.axes) is None,
        winograd=decision.step,
        block=decision.block_tiles,
        ahead=decision.ahead > 0,
        merged=decision.merged,
        parallel=PARALLEL.index(decision.parallel),
        cycles=plan.cycles,
    )


@lru_cache(maxsize=4)  # every candidate asks
def _taps(total: Contraction) -> int:
    """Elements of the window: reduce axes that an index of the input adds to others."""
    assert total.lhs.load is not None
    inner = {axis.var: axis.size or 1 for axis in total.reduce}
    found = set()
    for at in total.lhs.load.indices:
        used = variables(at)
        if used - inner.keys():
            found |= used & inner.keys()
    count = 1
    for var in found:
        count *= inner[var]
    return count
