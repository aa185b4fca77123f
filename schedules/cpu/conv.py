"""Convolutions: a sliding window, or Winograd's method where it fits and costs less.

Channels are the vectors. `conv_direct` and `winograd_kernel` describe the two kernels.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TypeAlias

from tvmext.arch import Arch, dtype_bits

from ..rule import Declined, Kernel, Scheduled
from . import conv_direct, winograd_choice, winograd_kernel
from .contraction import Contraction, rows_of
from .emit import known
from .gemm import known_size, unfit
from .panels import weight
from .read_contraction import contraction
from .tile import Shape
from .window import window
from .winograd_tiles import Windows, windows
from .words import factor_types


@dataclass(frozen=True)
class Workload:
    """The convolution as a sliding window, and as Winograd's method sees it if that fits."""

    direct: conv_direct.Workload
    windows: Windows | None = field(repr=False, compare=False)


Decision: TypeAlias = conv_direct.Decision | winograd_choice.Decision


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
        direct = _describe(found, kernel)
        weight_arg = direct.weight_arg
        return Workload(direct, None if weight_arg is None else windows(found, weight_arg))

    def choose(self, workload: Workload, arch: Arch) -> Decision:
        work = workload.direct
        decision = conv_direct.decide(work, arch)
        if workload.windows is None:
            return decision
        plan = winograd_choice.best_plan(workload.windows, self.filters, arch)
        if plan is None or plan.cycles >= conv_direct.cycles(work, decision, arch):
            return decision
        return winograd_choice.decide(workload.windows, plan, arch)

    def apply(
        self, kernel: Kernel, workload: Workload, decision: Decision, arch: Arch
    ) -> Scheduled:
        if isinstance(decision, conv_direct.Decision):
            return conv_direct.Builder(workload.direct, decision).build(kernel)
        assert workload.windows is not None
        return winograd_kernel.Builder(workload.windows, decision).build(kernel)


def _declines(found: Contraction) -> str:
    if found.lhs.load is None:
        return "the broadcast operand is computed from several loads"
    if not found.rows:
        return "no rows"
    if window(found, {}) is None or window(found, {found.rows[-1]: 2}) is None:
        return "the window is not affine"
    return ""


def _describe(found: Contraction, kernel: Kernel) -> conv_direct.Workload:
    images, height, width = rows_of(found)
    position = found.constant_rhs(kernel)
    if position is not None and weight(found, Shape(1, 1, 8)) is None:
        position = None
    one_row = window(found, {width: known(width.extent)})
    assert one_row is not None
    elements = 1
    for extent in one_row:
        elements *= extent if isinstance(extent, int) else 64
    assert found.lhs.load is not None
    return conv_direct.Workload(
        known_size(found.batch),
        known_size(images),
        1 if height is None else height.size,
        width.size,
        known_size(found.cols),
        known_size(found.reduce),
        found.lhs.source is not None,
        elements * dtype_bits(str(found.lhs.load.source.dtype)) // 8,
        position,
        found.dtype,
        found,
        factor_types(found),
    )
