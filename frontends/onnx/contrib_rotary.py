"""RotaryEmbedding of com.microsoft: pairs of numbers turned by an angle that grows by position.

    (x, y) -> (x cos - y sin, x sin + y cos)

A pair is x[i] and x[i + half], or two neighbours where it is interleaved.
"""

from __future__ import annotations

from .contrib_body import Body


def rotary(b: Body) -> None:
    """Of [batch, length, hidden] or [batch, heads, length, depth]."""
    if b.attr("is_packed_batching", 0) or b.attr("scale", 1.0) != 1:
        b.unwritten()
    x, turned, heads = b.input(0), 2 * b.fixed(2, 1), b.attr("num_heads", 0)
    flat = len(b.shape(0)) == 3
    if flat:
        heads = heads or b.fixed(0, 2) // turned
        x = b.op("Reshape", x, b.constant([0, 0, heads, -1]))
        x = b.op("Transpose", x, perm=[0, 2, 1, 3])
    depth = b.fixed(0, 2) // heads if flat else b.fixed(0, 3)
    positions = b.input(1)
    if len(b.shape(1)) == 1:  # that of the first
        size = b.op("Gather", b.op("Shape", x), b.constant(2), axis=0)
        steps = b.op("Range", b.constant(0), size, b.constant(1))
        positions = b.op("Unsqueeze", b.op("Add", steps, positions), b.constant([0]))
    turns = by_positions(b, b.input(2), b.input(3), positions)
    y = rotated(b, x, turns, turned, depth, bool(b.attr("interleaved", 0)))
    if flat:
        y = b.op("Transpose", y, perm=[0, 2, 1, 3])
        y = b.op("Reshape", y, b.constant([0, 0, -1]))
    b.result(0, y)


def by_positions(b: Body, cos: str, sin: str, positions: str) -> tuple[str, str]:
    """The rows of both tables for [batch, length] positions, the same for all heads."""
    rows = [b.op("Gather", table, positions, axis=0) for table in (cos, sin)]
    first, second = (b.op("Unsqueeze", row, b.constant([1])) for row in rows)
    return first, second


def rotated(
    b: Body, x: str, turns: tuple[str, str], turned: int, depth: int, interleaved: bool
) -> str:
    """[batch, heads, length, depth] with the first `turned` of `depth` numbers turned."""
    half, (cos, sin) = turned // 2, turns
    if interleaved:
        ranges = [(0, turned, 2), (1, turned, 2)]
    else:
        ranges = [(0, half, 1), (half, turned, 1)]
    left, right = (_part(b, x, *ends) for ends in ranges)
    parts = [
        b.op("Sub", b.op("Mul", left, cos), b.op("Mul", right, sin)),
        b.op("Add", b.op("Mul", left, sin), b.op("Mul", right, cos)),
    ]
    if interleaved:
        pairs = b.op("Concat", *(b.op("Unsqueeze", p, b.constant([4])) for p in parts), axis=4)
        parts = [b.op("Reshape", pairs, b.constant([0, 0, 0, -1]))]
    if turned < depth:
        parts.append(_part(b, x, turned, depth, 1))
    return b.op("Concat", *parts, axis=3) if len(parts) > 1 else parts[0]


def _part(b: Body, x: str, first: int, last: int, step: int) -> str:
    return b.op("Slice", x, *(b.constant([n]) for n in (first, last, 3, step)))
