"""A drawing as SVG that takes its colours from the page around it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from .layout import arrange
from .regions import Box, Drawing

CHAR, LINE = 6.7, 16.0
"""Width of a character and height of a line, in pixels at the font size that the page sets."""

WIDEST = 30
"""Characters in a line of a box."""

PAD_X, PAD_Y, MARGIN = 12.0, 9.0, 3.0


@dataclass(frozen=True)
class Svg:
    """The text of an image and its width in pixels."""

    text: str
    width: float


def svg(drawing: Drawing) -> Svg:
    """The drawing, as large as it has to be."""
    lines = [_lines(box) for box in drawing.boxes]
    sizes = [
        (max(len(text) for text, _ in rows) * CHAR + 2 * PAD_X, len(rows) * LINE + 2 * PAD_Y - 3)
        for rows in lines
    ]
    layout = arrange(sizes, drawing.arrows)
    width, height = layout.width + 2 * MARGIN, layout.height + 2 * MARGIN
    parts = [
        f'<svg width="{width:.0f}" height="{height:.0f}" viewBox="{-MARGIN} {-MARGIN} '
        f'{width:.0f} {height:.0f}" role="img">'
    ]
    parts += [f'<path class="arrow" d="{_path(points)}"/>' for points in layout.routes]
    for box, rows, (x, y), (w, h) in zip(drawing.boxes, lines, layout.corners, sizes):
        title = f"<title>{escape(box.title)}</title>" if box.title else ""
        radius = h / 2 if box.kind == "outside" else 7
        parts.append(
            f'<g class="box {box.kind}">{title}<rect x="{x:.1f}" y="{y:.1f}" width="{w:.1f}" '
            f'height="{h:.1f}" rx="{radius:.0f}"/>'
        )
        for number, (text, kind) in enumerate(rows):
            parts.append(
                f'<text class="{kind}" x="{x + w / 2:.1f}" '
                f'y="{y + PAD_Y + (number + 0.75) * LINE:.1f}">{escape(text)}</text>'
            )
        parts.append("</g>")
    return Svg("".join([*parts, "</svg>"]), width)


def _lines(box: Box) -> list[tuple[str, str]]:
    """The lines of text in a box, and what they are: "name", "by" or "shape"."""
    found = [(line, "name") for line in _wrapped(box.label)]
    found += [(line, "by") for line in _wrapped(box.detail)]
    return found + [(line, "shape") for line in _wrapped(box.shape)]


def _wrapped(text: str) -> list[str]:
    """Lines of at most `WIDEST` characters, broken at spaces; the third ends the text."""
    lines: list[str] = []
    for word in text.split():
        word = word if len(word) <= WIDEST else word[: WIDEST - 1] + "\u2026"
        if lines and len(lines[-1]) + 1 + len(word) <= WIDEST:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return lines if len(lines) <= 3 else [*lines[:2], lines[2][: WIDEST - 2] + " \u2026"]


def _path(points: Sequence[tuple[float, float]]) -> str:
    """A smooth line down through the points."""
    (x, y), *rest = points
    text = [f"M{x:.1f} {y:.1f}"]
    for next_x, next_y in rest:
        if next_x == x:
            text.append(f"V{next_y:.1f}")
        else:
            half = (y + next_y) / 2
            text.append(f"C{x:.1f} {half:.1f} {next_x:.1f} {half:.1f} {next_x:.1f} {next_y:.1f}")
        x, y = next_x, next_y
    return "".join(text)
