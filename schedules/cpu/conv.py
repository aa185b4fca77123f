"""Convolutions: a sliding window, or Winograd's method where it fits and costs less.

Channels are the vectors. `conv_direct` and `winograd_kernel` describe the two kernels.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import TypeAlias

from tvm.ir import Expr, TensorLoad

from tvmext.arch import CpuArch, dtype_bits

from ..kernel.analysis import Axis, analyzer, collect, constant, flat_index, stride
from ..kernel.contraction import Contraction, rows_of
from ..kernel.emit import known
from ..kernel.read_contraction import contraction
from ..rule import OWN_ADDRESSES, Declined, Kernel, Scheduled
from . import conv_choice, conv_direct, winograd_choice, winograd_kernel
from .conv_groups import Groups, groups, merged, spread
from .gemm import known_size, register_units, unfit
from .panels import weight
from .tile import UNROLL, Shape
from .turned import crosses
from .turns import hiding
from .window import window
from .winograd_tiles import Windows, windows
from .words import factor_types


@dataclass(frozen=True)
class Workload:
    """The convolution as a sliding window, and what else is known if its weight is constant."""

    direct: conv_choice.Workload
    windows: Windows | None = field(repr=False, compare=False)
    """As Winograd's method sees it, if that fits."""
    groups: Groups | None = field(repr=False, compare=False)


Decision: TypeAlias = conv_choice.Decision | winograd_choice.Decision


class Conv:
    """Products whose broadcast operand is read through a window, or computed by a loader.

    `filters` are the F(m, 3) of Winograd's method that may be used, by m.
    """

    name = "conv"

    def __init__(self, filters: Iterable[int] = (2,)) -> None:
        self.filters = tuple(filters)

    def match(self, kernel: Kernel) -> Workload | Declined:
        found = contraction(kernel)
        if isinstance(found, Declined):
            return found
        reason = unfit(found) or _declines(found)
        if reason:
            return Declined(reason)
        return _workload(found, found.constant_rhs(kernel))

    def choose(self, workload: Workload, arch: CpuArch) -> Decision:
        """The kernel of the least price, with groups as they are or some of them taken together."""
        best, price = self._priced(workload, arch)
        found = workload.groups
        if found is None or workload.direct.turned:
            return best
        widths, *_ = register_units(workload.direct.dtype, None, None, arch)
        for factor in sorted({found.factor(lanes) for lanes, _ in widths} - {1}):
            other, cycles = self._priced(merged_groups(workload, factor), arch)
            if cycles <= price:
                best, price = replace(other, merged=factor), cycles
        return best

    def _priced(self, workload: Workload, arch: CpuArch) -> tuple[Decision, float]:
        decision = conv_choice.decide(workload.direct, arch)
        cycles = conv_choice.cycles(workload.direct, decision, arch)
        if workload.windows is None:
            return decision, cycles
        plan = winograd_choice.best_plan(workload.windows, self.filters, arch)
        if plan is None or plan.cycles >= cycles:
            return decision, cycles
        return winograd_choice.decide(workload.windows, plan, arch), plan.cycles

    def apply(
        self, kernel: Kernel, workload: Workload, decision: Decision, arch: CpuArch
    ) -> Scheduled:
        work = merged_groups(workload, decision.merged) if decision.merged > 1 else workload
        if isinstance(decision, conv_choice.Decision):
            bits = decision.tile.lanes * dtype_bits(work.direct.contraction.dtype)
            chains = hiding(arch.fmas_per_cycle(bits))
            builder = conv_direct.Builder(work.direct, decision, chains)
            result, own = builder.build(kernel), builder.shared is not None
        else:
            assert work.windows is not None
            result, own = winograd_kernel.Builder(work.windows, decision).build(kernel), False
        if own or not _unrolled(work, decision):
            result = replace(result, func=result.func.with_attr(OWN_ADDRESSES, True))
        if decision.merged == 1:
            return result
        assert workload.groups is not None
        layouts = {
            position: spread(layout, workload.groups, decision.merged)
            for position, layout in result.layouts.items()
        }
        return Scheduled(result.func, layouts)


def _unrolled(work: Workload, decision: Decision) -> bool:
    """Whether neighbouring channels of a picture are steps written out one after another.

    Without better addresses LLVM then loads the inputs of all of them first, more than there are
    registers (7x7 over three channels, stride 2: 4.8 ms instead of 2.7). It does not where each
    channel is a picture of its own.
    """
    if not isinstance(decision, conv_choice.Decision):
        return False
    total = work.direct.contraction
    channel = total.reduce[-1]
    if channel.size is None or channel.size > UNROLL:
        return False
    loads = collect(total.lhs.value, TensorLoad)
    return any(constant(_step(total, load, channel)) == 1 for load in loads)


def _workload(found: Contraction, weight_arg: int | None) -> Workload:
    if weight_arg is None or weight(found, Shape(1, 1, 8)) is None:
        return Workload(_describe(found, None), None, None)
    direct = _describe(found, weight_arg)
    tiles = None if direct.turned else windows(found, weight_arg)
    return Workload(direct, tiles, groups(found))


def merged_groups(workload: Workload, factor: int) -> Workload:
    """The same convolution with `factor` groups in one."""
    assert workload.groups is not None
    wide = merged(workload.direct.contraction, workload.groups, factor)
    return _workload(wide, workload.direct.weight_arg)


def _declines(found: Contraction) -> str:
    if found.lhs.load is None:
        return "the broadcast operand is computed from several loads"
    if not found.rows:
        return "no rows"
    if window(found, {}) is None or window(found, {found.rows[-1]: 2}) is None:
        return "the window is not affine"
    return ""


def _describe(found: Contraction, weight_arg: int | None) -> conv_choice.Workload:
    images, height, width = rows_of(found)
    one_row = window(found, {width: known(width.extent)})
    assert one_row is not None
    elements = 1
    for extent in one_row:
        elements *= extent if isinstance(extent, int) else 64
    load = found.lhs.load
    assert load is not None
    width_of = dtype_bits(str(load.source.dtype)) // 8
    pitch = constant(_step(found, load, width))
    return conv_choice.Workload(
        known_size(found.batch),
        known_size(images),
        1 if height is None else height.size,
        width.size,
        known_size(found.cols),
        known_size(found.reduce),
        found.lhs.source is not None,
        elements * width_of,
        (pitch or 0) * width_of,
        weight_arg,
        found.dtype,
        found,
        factor_types(found),
        crosses(found),
    )


def _step(found: Contraction, load: TensorLoad, axis: Axis) -> Expr | None:
    """How far apart in memory what `load` reads is at neighbours along `axis`, if that is even."""
    axes = (*found.batch, *found.rows, *found.reduce)
    return stride(flat_index(load), axis.var, analyzer(axes, load.source.shape))
