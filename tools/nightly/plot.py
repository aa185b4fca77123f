"""Figures over nights as SVG, which takes its colours from the page around it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

from .overview import Trend

WIDTH, HEIGHT = 480, 190
LEFT, RIGHT, TOP, BOTTOM = 58, 16, 14, 26
"""The plot and its margins, in pixels."""

LEAST_SPAN = 0.04
"""The axis covers at least this part of the value: noise is not to fill the plot."""

SPARK_WIDTH, SPARK_HEIGHT = 110, 24


def plot(trend: Trend, labels: Mapping[int, str]) -> str:
    """A line over the runs; `labels` name each run, shown at its dot and the ends of the axis."""
    runs = [run for run, _ in trend.points]
    values = [value for _, value in trend.points]
    low, high = _span(values)
    across = _scale(range(len(runs)), 0, max(len(runs) - 1, 1), LEFT, WIDTH - RIGHT)
    if len(runs) == 1:
        across = [(LEFT + WIDTH - RIGHT) / 2]
    up = _scale(values, low, high, HEIGHT - BOTTOM, TOP)
    parts = []
    ticks = {trend.text(tick): tick for tick in (low, high, (low + high) / 2)}
    for tick in ticks.values():
        (y,) = _scale([tick], low, high, HEIGHT - BOTTOM, TOP)
        text = escape(trend.text(tick))
        parts.append(f'<path class="grid" d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}"/>')
        parts.append(f'<text class="tick left" x="{LEFT - 8}" y="{y + 4:.1f}">{text}</text>')
    line = "L".join(f"{x:.1f} {y:.1f}" for x, y in zip(across, up))
    parts.append(f'<path class="line" d="M{line}"/>')
    for run, value, x, y in zip(runs, values, across, up):
        told = escape(f"{trend.text(value)}: {labels.get(run, str(run))}")
        parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4"><title>{told}</title></circle>')
    ends = [(across[0], runs[0], "first")] + ([(across[-1], runs[-1], "left")] * (len(runs) > 1))
    if len(runs) == 1:
        ends = [(across[0], runs[0], "")]
    for x, run, kind in ends:
        date = escape(labels.get(run, str(run))[:10])
        parts.append(f'<text class="tick {kind}" x="{x:.1f}" y="{HEIGHT - 6}">{date}</text>')
    title = escape(trend.title)
    return (
        f'<svg class="trend" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{title}">'
        f"{''.join(parts)}</svg>"
    )


def spark(values: Sequence[float]) -> str:
    """A small line without axes; its span is at least a tenth of the value."""
    if len(values) < 2:
        return ""
    low, high = _span(values, 0.1)
    across = _scale(range(len(values)), 0, len(values) - 1, 3, SPARK_WIDTH - 5)
    up = _scale(values, low, high, SPARK_HEIGHT - 4, 4)
    line = "L".join(f"{x:.1f} {y:.1f}" for x, y in zip(across, up))
    return (
        f'<svg class="spark" width="{SPARK_WIDTH}" height="{SPARK_HEIGHT}" aria-hidden="true">'
        f'<path class="line" d="M{line}"/>'
        f'<circle cx="{across[-1]:.1f}" cy="{up[-1]:.1f}" r="2.5"/></svg>'
    )


def _span(values: Sequence[float], part: float = LEAST_SPAN) -> tuple[float, float]:
    low, high = min(values), max(values)
    if low == high == 0:
        return 0.0, 1.0
    middle = (low + high) / 2
    half = max((high - low) * 0.6, abs(middle) * part / 2, 1e-9)
    return middle - half, middle + half


def _scale(
    values: Sequence[float], low: float, high: float, start: float, end: float
) -> list[float]:
    return [start + (value - low) / (high - low) * (end - start) for value in values]
