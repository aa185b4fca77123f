"""GroupQueryAttention of com.microsoft: attention of decoders, with the cache in the operator."""

from __future__ import annotations

from collections.abc import Callable

from .contrib_attention import attend, counted, length, lowest, scale_of, sliced, split_heads, where
from .contrib_body import Body
from .contrib_rotary import by_positions, rotated


def _grouped(b: Body) -> None:
    """Heads in groups share keys; a batch's own lengths say where the new ones go in the cache."""
    b.declines(12, 13)
    if b.wants(3) or b.attr("sliding_window_cache", 0) or b.has(3) != b.has(4):
        b.unwritten()
    heads, groups = b.attr("num_heads"), b.attr("kv_num_heads")
    q, k, v, depth = _operands(b, heads, groups)
    ends = b.op("Cast", b.op("Reshape", b.input(5), b.constant([-1])), to=7)
    ends = b.op("Add", ends, b.constant(1))
    steps = length(b, q)
    starts = b.op("Max", b.op("Sub", ends, steps), b.constant(0))
    if b.attr("do_rotary", 0):
        turns = by_positions(b, b.input(7), b.input(8), _positions(b, starts, steps))
        turned, interleaved = 2 * b.fixed(7, 1), bool(b.attr("rotary_interleaved", 0))
        q, k = (rotated(b, x, turns, turned, depth, interleaved) for x in (q, k))
    if b.has(3):
        rows = _cache_rows(b, k, starts, steps)
        k, v = (_cached(b, b.input(3 + i), new, rows) for i, new in enumerate((k, v)))
    b.result(1, k)
    b.result(2, v)
    biases = [_mask(b, k, starts, ends, steps)]
    if b.has(10):
        biases.append(b.input(10))
    k, v = (_shared(b, x, heads, groups) for x in (k, v))
    scale, cap = scale_of(b, depth), b.attr("softcap", 0.0)
    b.result(0, attend(b, q, k, v, scale, biases, _softmax(b), cap))


def _operands(b: Body, heads: int, groups: int) -> tuple[str, str, str, int]:
    """q, k and v, which may lie side by side, as heads, and their depth."""
    counts = (heads, groups, groups)
    if b.has(1):
        depth = b.fixed(0, 2) // heads
        parts = [b.input(index) for index in range(3)]
    else:
        depth = b.fixed(0, 2) // (heads + 2 * groups)
        limits = [depth * count for count in (0, heads, heads + groups, heads + 2 * groups)]
        parts = [sliced(b, b.input(0), 2, *limits[i : i + 2]) for i in range(3)]
    q, k, v = (split_heads(b, x, count) for x, count in zip(parts, counts))
    if b.has(14):
        epsilon = b.attr("qk_norm_epsilon", 1e-6)
        q = b.op("RMSNormalization", q, b.input(14), axis=-1, epsilon=epsilon)
        k = b.op("RMSNormalization", k, b.input(15), axis=-1, epsilon=epsilon)
    return q, k, v, depth


def _positions(b: Body, starts: str, steps: str) -> str:
    """[batch, length]"""
    if b.has(9):
        return b.input(9)
    first = b.op("Unsqueeze", starts, b.constant([1]))
    return b.op("Add", first, counted(b, steps, [0]))


def _cache_rows(b: Body, new: str, starts: str, steps: str) -> str:
    """[batch, groups, present]: which row of past and new, one below the other, is row j.

    j before a batch's start, then past + j - start; what is behind its end is not read.
    """
    past = length(b, b.input(3))
    total = b.op("Cast", b.op("Reshape", b.input(6), b.constant([])), to=7)
    size = b.op("Max", past, total)
    j = counted(b, size, [0])
    first = b.op("Unsqueeze", starts, b.constant([1]))
    moved = b.op("Add", b.op("Sub", j, first), past)
    last = b.op("Sub", b.op("Add", past, steps), b.constant(1))
    row = b.op("Min", b.op("Where", b.op("Less", j, first), j, moved), last)
    joined = b.op("Add", past, steps)
    dims = b.op("Shape", new)
    batch, groups = (b.op("Gather", dims, b.constant(axis), axis=0) for axis in (0, 1))
    block = b.op("Unsqueeze", counted(b, batch, [1]), b.constant([2]))
    block = b.op("Add", b.op("Mul", block, groups), counted(b, groups, [0, 2]))
    return b.op("Add", b.op("Mul", block, joined), b.op("Unsqueeze", row, b.constant([1])))


def _cached(b: Body, past: str, new: str, rows: str) -> str:
    """[batch, groups, present, depth]"""
    joined = b.op("Concat", past, new, axis=2)
    depth = b.op("Shape", new, start=3)
    flat = b.op("Reshape", joined, b.op("Concat", b.constant([-1]), depth, axis=0))
    return b.op("Gather", flat, rows, axis=0)


def _mask(b: Body, k: str, starts: str, ends: str, steps: str) -> str:
    """Row i of a batch sees keys up to start + i, of those the last `local_window_size`."""
    j = counted(b, length(b, k), [0])
    if not b.attr("causal", 1):
        kept = b.op("Less", j, b.op("Unsqueeze", ends, b.constant([1, 2, 3])))
        return where(b, kept, lowest(b))
    first = b.op("Unsqueeze", starts, b.constant([1, 2, 3]))
    row = b.op("Add", counted(b, steps, [1]), first)
    kept = b.op("LessOrEqual", j, row)
    window = b.attr("local_window_size", -1)
    if window >= 0:
        oldest = b.op("Sub", row, b.constant(window))
        kept = b.op("And", kept, b.op("Greater", j, oldest))
    return where(b, kept, lowest(b))


def _shared(b: Body, x: str, heads: int, groups: int) -> str:
    """Each head of [batch, groups, length, depth] as often as heads share it."""
    if heads == groups:
        return x
    dims = [b.op("Shape", x, start=i, end=i + 1) for i in range(4)]
    times = b.constant([heads // groups])
    wide = b.op("Concat", dims[0], dims[1], times, dims[2], dims[3], axis=0)
    flat = b.op("Concat", dims[0], b.constant([heads]), dims[2], dims[3], axis=0)
    copies = b.op("Expand", b.op("Unsqueeze", x, b.constant([2])), wide)
    return b.op("Reshape", copies, flat)


def _softmax(b: Body) -> Callable[[str], str] | None:
    """A softmax with one more term below: exp of a head's sink, or exp(0)."""
    if not b.has(11) and b.attr("smooth_softmax", 0) != 1:
        return None

    def softmax(scores: str) -> str:
        ones = [b.op("Shape", scores, start=0, end=3), b.constant([1])]
        shape = b.op("Concat", *ones, axis=0)
        sink = b.real(0)
        if b.has(11):
            sink = b.op("Reshape", b.input(11), b.constant([1, -1, 1, 1]))
        both = b.op("Concat", scores, b.op("Expand", sink, shape), axis=3)
        weights = b.op("Softmax", both, axis=-1)
        return sliced(b, weights, 3, 0, -1)

    return softmax


BODIES: dict[str, Callable[[Body], None]] = {"GroupQueryAttention": _grouped}
