"""The roofline plot of a profile as SVG, which takes its colours from the page around it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from .groups import Group, time_text
from .machine import Roof

WIDTH, HEIGHT = 1080, 420
LEFT, RIGHT, TOP, BOTTOM = 64, 24, 16, 44
"""The plot and its margins, in pixels."""

LABEL, CHAR, LINE = 26, 7.0, 14.0
"""Characters of a label at most, and the pixels of one and of a line."""

LEAST_SHARE = 1e-3
"""Kernels with less of the time have no dot."""

WORKING_SET = 1 << 28
"""Bytes beyond every cache: their bandwidth is that of memory."""


@dataclass(frozen=True)
class _Axis:
    """A logarithmic axis from `low` to `high` between two pixels."""

    low: float
    high: float
    start: float
    end: float

    def at(self, value: float) -> float:
        part = math.log(value / self.low) / math.log(self.high / self.low)
        return self.start + part * (self.end - self.start)

    def ticks(self) -> list[float]:
        first, last = (round(math.log10(v)) for v in (self.low, self.high))
        return [10.0**power for power in range(first, last + 1)]


def memory_bandwidth(roof: Roof) -> float:
    """Bytes per second of memory."""
    return roof.bandwidth_at(WORKING_SET)


def roofline(roof: Roof, kernels: Sequence[Group]) -> str:
    """Rate against intensity, under the roof; the area of a dot is the time of its kernel.

    Empty if there is no kernel whose work is known.
    """
    whole = sum(group.seconds for group in kernels)
    dots = [
        (group, group.flops / group.bytes, group.flops / group.seconds / 1e9)
        for group in kernels
        if group.flops and group.bytes and group.seconds > LEAST_SHARE * whole
    ]
    if not dots:
        return ""
    peak, band = roof.peak / 1e9, memory_bandwidth(roof) / 1e9
    x = _axis([*(intensity for _, intensity, _ in dots), peak / band], LEFT, WIDTH - RIGHT)
    y = _axis([*(rate for *_, rate in dots), peak], HEIGHT - BOTTOM, TOP)
    parts = [*_grid(x, y), _roof(x, y, peak, band)]
    for group, intensity, rate in dots:
        share = group.seconds / whole
        title = f"{group.name}: {time_text(group.seconds)}, {rate:.1f} GFLOP/s, {share:.0%} of all"
        parts.append(
            f'<circle cx="{x.at(intensity):.1f}" cy="{y.at(rate):.1f}" '
            f'r="{max(4.0, 44 * math.sqrt(share)):.1f}"><title>{escape(title)}</title></circle>'
        )
    parts += _labels([(x.at(i), y.at(r), group.name) for group, i, r in dots])
    return (
        f'<svg class="roofline" role="img" viewBox="0 0 {WIDTH} {HEIGHT}" '
        f'aria-label="Roofline plot">{"".join(parts)}</svg>'
    )


def _labels(places: Sequence[tuple[float, float, str]]) -> list[str]:
    """The names of dots, the first ones first, where they do not cover each other."""
    taken: list[tuple[float, float, float]] = []
    parts = []
    for x, y, name in places:
        text = name if len(name) <= LABEL else f"{name[: LABEL - 1]}\u2026"
        half = len(text) * CHAR / 2
        at = min(max(x, LEFT + half), WIDTH - RIGHT - half)
        if all(abs(at - u) > half + w or abs(y - v) > LINE for u, v, w in taken):
            taken.append((at, y, half))
            parts.append(f'<text x="{at:.1f}" y="{y + 4:.1f}">{escape(text)}</text>')
    return parts


def _axis(values: Sequence[float], start: float, end: float) -> _Axis:
    low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
    return _Axis(10.0**low, 10.0 ** max(high, low + 1), start, end)


def _grid(x: _Axis, y: _Axis) -> list[str]:
    parts = []
    for value in x.ticks():
        at = x.at(value)
        parts.append(f'<path class="grid" d="M{at:.1f} {TOP}V{HEIGHT - BOTTOM}"/>')
        parts.append(f'<text class="tick" x="{at:.1f}" y="{HEIGHT - BOTTOM + 18}">{value:g}</text>')
    for value in y.ticks():
        at = y.at(value)
        parts.append(f'<path class="grid" d="M{LEFT} {at:.1f}H{WIDTH - RIGHT}"/>')
        parts.append(f'<text class="tick left" x="{LEFT - 8}" y="{at + 4:.1f}">{value:g}</text>')
    middle = (LEFT + WIDTH - RIGHT) / 2
    parts.append(f'<text class="tick" x="{middle}" y="{HEIGHT - 6}">operations per byte</text>')
    parts.append(f'<text class="tick first" x="{LEFT + 6}" y="{TOP + 12}">GFLOP/s</text>')
    return parts


def _roof(x: _Axis, y: _Axis, peak: float, band: float) -> str:
    """``min(peak, bandwidth x intensity)``, from where it enters the plot."""
    first = max(x.low, y.low / band)
    ridge = min(max(peak / band, first), x.high)
    points = [(first, band * first), (ridge, band * ridge), (x.high, peak)]
    path = "L".join(f"{x.at(i):.1f} {y.at(min(r, peak)):.1f}" for i, r in points)
    return f'<path class="roof" d="M{path}"/>'
