"""Where the boxes of a drawing go: in layers, after Sugiyama, Tagawa and Toda (1981).

1. Layers: a box lies below all that it reads; what reads nothing lies just above its first reader.
2. An arrow across several layers passes through a small box in each.
3. Order within a layer: sweeps by the mean position of the neighbours, the best of all kept.
4. Positions: each box as close as possible to the middle of its neighbours, in order and apart: a
   least-squares fit that pools boxes which push each other (isotonic regression).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

GAP_X, GAP_Y = 22.0, 34.0
BEND = 6.0
"""Width of the small box through which an arrow passes."""

SWEEPS = 10


@dataclass(frozen=True)
class Layout:
    """Corners (left, top) of the boxes, the points that each arrow passes, and the whole size."""

    corners: list[tuple[float, float]]
    routes: list[list[tuple[float, float]]]
    width: float
    height: float


def arrange(sizes: Sequence[tuple[float, float]], arrows: Sequence[tuple[int, int]]) -> Layout:
    """Lay out boxes of these widths and heights; `arrows` are pairs of them, without cycles."""
    layer = _layers(len(sizes), arrows)
    width = [size[0] for size in sizes]
    height = [size[1] for size in sizes]
    chains = []
    for start, end in arrows:
        chain = [start]
        for between in range(layer[start] + 1, layer[end]):
            chain.append(len(layer))
            layer.append(between)
            width.append(BEND)
            height.append(0.0)
        chains.append([*chain, end])
    links = [pair for chain in chains for pair in pairwise(chain)]
    rows = _ordered(layer, links)
    middle = _middles(rows, width, links)
    tops = _tops(rows, height)
    left = min((middle[k] - width[k] / 2 for k in range(len(width))), default=0.0)
    x = [m - left for m in middle]
    corners = [(x[k] - width[k] / 2, tops[layer[k]][0]) for k in range(len(sizes))]
    routes = []
    for chain in chains:
        start, *bends, end = chain
        points = [(x[start], corners[start][1] + height[start])]
        for k in bends:
            points += [(x[k], tops[layer[k]][0]), (x[k], tops[layer[k]][1])]
        routes.append([*points, (x[end], corners[end][1])])
    total = max((x[k] + width[k] / 2 for k in range(len(width))), default=0.0)
    return Layout(corners, routes, total, tops[-1][1] if tops else 0.0)


def _layers(count: int, arrows: Sequence[tuple[int, int]]) -> list[int]:
    below: list[list[int]] = [[] for _ in range(count)]
    missing = [0] * count
    for start, end in arrows:
        below[start].append(end)
        missing[end] += 1
    reads = [bool(number) for number in missing]
    layer = [0] * count
    ready = [k for k in range(count) if not missing[k]]
    for k in ready:  # grows while it is walked
        for end in below[k]:
            layer[end] = max(layer[end], layer[k] + 1)
            missing[end] -= 1
            if not missing[end]:
                ready.append(end)
    for k in range(count):
        if not reads[k] and below[k]:
            layer[k] = min(layer[end] for end in below[k]) - 1
    return layer


def _ordered(layer: Sequence[int], links: Sequence[tuple[int, int]]) -> list[list[int]]:
    rows: list[list[int]] = [[] for _ in range(max(layer, default=-1) + 1)]
    for k, row in enumerate(layer):
        rows[row].append(k)
    up, down = _neighbours(len(layer), links)
    best, fewest = rows, _crossings(rows, down)
    for sweep in range(SWEEPS):
        if fewest == 0:
            break
        rows = [list(row) for row in rows]
        numbers = range(1, len(rows)) if sweep % 2 == 0 else range(len(rows) - 2, -1, -1)
        for number in numbers:
            near = up if sweep % 2 == 0 else down
            beside = rows[number - 1] if sweep % 2 == 0 else rows[number + 1]
            at = {k: place for place, k in enumerate(beside)}
            here = {k: place for place, k in enumerate(rows[number])}
            mean = {k: _mean([at[n] for n in near[k]], here[k]) for k in rows[number]}
            rows[number].sort(key=lambda k: (mean[k], here[k]))
        crossings = _crossings(rows, down)
        if crossings < fewest:
            best, fewest = rows, crossings
    return best


def _crossings(rows: Sequence[Sequence[int]], down: Sequence[Sequence[int]]) -> int:
    """How many pairs of arrows between two layers cross."""
    count = 0
    for row, below in pairwise(rows):
        at = {k: place for place, k in enumerate(below)}
        ends: list[int] = []
        for k in row:
            found = sorted(at[n] for n in down[k])
            count += sum(1 for new in found for old in ends if old > new)
            ends += found
    return count


def _middles(
    rows: Sequence[Sequence[int]], width: Sequence[float], links: Sequence[tuple[int, int]]
) -> list[float]:
    up, down = _neighbours(len(width), links)
    middle = [0.0] * len(width)
    for row in rows:
        _apart(row, [0.0] * len(row), width, middle)
    for sweep in range(SWEEPS):
        near = up if sweep % 2 == 0 else down
        for row in rows if sweep % 2 == 0 else reversed(rows):
            wanted = [_mean([middle[n] for n in near[k]], middle[k]) for k in row]
            _apart(row, wanted, width, middle)
    return middle


def _apart(
    row: Sequence[int], wanted: Sequence[float], width: Sequence[float], middle: list[float]
) -> None:
    """Sets the middles of a row: least squares to `wanted`, in order, and a gap between boxes."""
    offset = 0.0
    offsets = []
    for position, k in enumerate(row):
        if position:
            offset += (width[row[position - 1]] + width[k]) / 2 + GAP_X
        offsets.append(offset)
    pools: list[tuple[float, int]] = []  # mean of wanted - offset, number of boxes
    for goal, shift in zip(wanted, offsets):
        mean, count = goal - shift, 1
        while pools and pools[-1][0] > mean:
            other, number = pools.pop()
            mean, count = (mean * count + other * number) / (count + number), count + number
        pools.append((mean, count))
    means = [mean for mean, count in pools for _ in range(count)]
    for k, mean, shift in zip(row, means, offsets):
        middle[k] = mean + shift


def _tops(rows: Sequence[Sequence[int]], height: Sequence[float]) -> list[tuple[float, float]]:
    """Top and bottom of each layer."""
    tops = []
    top = 0.0
    for row in rows:
        bottom = top + max(height[k] for k in row)
        tops.append((top, bottom))
        top = bottom + GAP_Y
    return tops


def _neighbours(
    count: int, links: Iterable[tuple[int, int]]
) -> tuple[list[list[int]], list[list[int]]]:
    up: list[list[int]] = [[] for _ in range(count)]
    down: list[list[int]] = [[] for _ in range(count)]
    for start, end in links:
        up[end].append(start)
        down[start].append(end)
    return up, down


def _mean(values: Sequence[float], otherwise: float) -> float:
    return sum(values) / len(values) if values else otherwise
