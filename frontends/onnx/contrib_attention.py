"""The attention operators of com.microsoft.

    out = softmax(scale * q @ k' + biases) @ v        q, k, v: [batch, heads, length, depth]

in the form that passes/fuse_attention.py finds. Masks are added to the scores, as ONNX Runtime adds
them on a CPU. Lengths are counted from the shapes, so that dims may be free.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from .contrib_body import Body

END = 2**62
BHSD = [0, 2, 1, 3]
"""The transpose between [batch, length, heads, depth] and [batch, heads, length, depth]."""


def _attention(b: Body) -> None:
    """input @ weights + bias is q, k and v side by side; past and present are [2, ..]."""
    product = b.op("MatMul", b.input(0), b.input(1))
    b.declines(6)
    _self_attention(b, product, mask=3, past=4, bias=5)


def _quantized_attention(b: Body) -> None:
    """The same of bytes: input, weight, bias, two scales, mask, two zero points, past."""
    product = integer_product(b, (0, 6, 3), (1, 7, 4))
    _self_attention(b, product, mask=5, past=8)


def integer_product(b: Body, left: Sequence[int], right: Sequence[int]) -> str:
    """a @ b of bytes: data, zero point and scale of each by their positions."""
    zeros = [b.input(side[1]) if b.has(side[1]) else "" for side in (left, right)]
    operands = [b.input(left[0]), b.input(right[0]), *zeros]
    while not operands[-1]:
        operands.pop()
    exact = b.op("Cast", b.op("MatMulInteger", *operands), to=1)
    return b.op("Mul", exact, b.op("Mul", b.input(left[2]), b.input(right[2])))


def _self_attention(b: Body, product: str, mask: int, past: int, bias: int = 99) -> None:
    heads = b.attr("num_heads")
    if b.attr("do_rotary", 0) or b.attr("past_present_share_buffer", 0):
        b.unwritten()
    sizes = b.attr("qkv_hidden_sizes") or [b.fixed(1, 1) // 3] * 3
    if b.has(2):
        product = b.op("Add", product, b.input(2))
    ends = np.cumsum([0, *sizes])
    parts = [sliced(b, product, 2, *map(int, ends[i : i + 2])) for i in range(3)]
    q, k, v = (split_heads(b, part, heads) for part in parts)
    new = k
    if b.has(past):
        before = [b.op("Gather", b.input(past), b.constant(i), axis=0) for i in (0, 1)]
        k, v = (b.op("Concat", old, part, axis=2) for old, part in zip(before, (k, v)))
    if b.wants(1):
        whole = [b.op("Unsqueeze", part, b.constant([0])) for part in (k, v)]
        b.result(1, b.op("Concat", *whole, axis=0))
    biases = _masks(b, q, new, k, mask) + ([b.input(bias)] if b.has(bias) else [])
    b.result(0, attend(b, q, k, v, scale_of(b, sizes[0] // heads), biases))


def _multi_head(b: Body) -> None:
    """q, k and v of their own, or packed along an axis; a bias for each; past and present."""
    b.declines(8, 9)
    heads, rank = b.attr("num_heads"), len(b.shape(0))
    if b.wants(3):
        b.unwritten()
    if rank == 5:
        q, k, v = (_unpacked(b, 0, part) for part in range(3))
        depth = b.fixed(0, 4)
    else:
        hidden = b.fixed(0, 2)
        q, depth = _biased_heads(b, b.input(0), heads, 0, hidden), hidden // heads
        kind = len(b.shape(1))
        if kind == 5:
            k, v = (_unpacked(b, 1, part) for part in range(2))
        elif kind == 4:
            k, v = b.input(1), b.input(2)
        else:
            k = _biased_heads(b, b.input(1), heads, hidden, 2 * hidden)
            v = _biased_heads(b, b.input(2), heads, 2 * hidden, END)
        if kind == 5 or rank == 5:
            b.declines(3)
    new = k
    if b.has(6):
        k, v = (b.op("Concat", b.input(6 + i), part, axis=2) for i, part in enumerate((k, v)))
    b.result(1, k)
    b.result(2, v)
    biases = _masks(b, q, new, k, 4) + ([b.input(5)] if b.has(5) else [])
    b.result(0, attend(b, q, k, v, scale_of(b, depth), biases))


def _unpacked(b: Body, index: int, part: int) -> str:
    """[batch, length, heads, parts, depth] -> [batch, heads, length, depth]"""
    one = b.op("Gather", b.input(index), b.constant(part), axis=3)
    return b.op("Transpose", one, perm=BHSD)


def _biased_heads(b: Body, x: str, heads: int, first: int, last: int) -> str:
    """Heads of x + bias[first:last]."""
    if b.has(3):
        x = b.op("Add", x, sliced(b, b.input(3), 0, first, last))
    return split_heads(b, x, heads)


def split_heads(b: Body, x: str, heads: int) -> str:
    """[batch, length, heads * depth] -> [batch, heads, length, depth]"""
    return b.op("Transpose", b.op("Reshape", x, b.constant([0, 0, heads, -1])), perm=BHSD)


def attend(
    b: Body,
    q: str,
    k: str,
    v: str,
    scale: float,
    biases: Sequence[str],
    softmax: Callable[[str], str] | None = None,
    cap: float = 0.0,
) -> str:
    """[batch, length, heads * depth]; with `cap`, scores are cap * tanh(scores / cap)."""
    scores = b.op("MatMul", q, b.op("Transpose", k, perm=[0, 1, 3, 2]))
    scores = b.op("Mul", scores, b.real(scale))
    if cap:
        bounded = b.op("Tanh", b.op("Div", scores, b.real(cap)))
        scores = b.op("Mul", bounded, b.real(cap))
    for bias in biases:
        scores = b.op("Add", scores, bias)
    weights = softmax(scores) if softmax else b.op("Softmax", scores, axis=-1)
    out = b.op("Transpose", b.op("MatMul", weights, v), perm=BHSD)
    return b.op("Reshape", out, b.constant([0, 0, -1]))


def scale_of(b: Body, depth: int) -> float:
    return b.attr("scale", 0.0) or depth**-0.5


def _masks(b: Body, q: str, new: str, k: str, index: int) -> list[str]:
    """What is added to the scores: by position in a unidirectional one, and by input `index`."""
    biases = []
    total = length(b, k)
    if b.attr("unidirectional", 0):
        past = b.op("Sub", total, length(b, new))
        rows = b.op("Add", counted(b, length(b, q), [1]), past)
        near = b.op("LessOrEqual", counted(b, total, [0]), rows)
        biases.append(where(b, near, lowest(b)))
    if b.has(index):
        given, value = b.shape(index), b.attr("mask_filter_value", -10000.0)
        if len(given) == 1:
            if given[0] != b.shape(0)[0]:  # starts and ends
                b.unwritten()
            ends = b.op("Unsqueeze", b.op("Cast", b.input(index), to=7), b.constant([1, 2, 3]))
            kept = b.op("Less", counted(b, total, [0]), ends)
        elif len(given) in (2, 3):
            axes = [1, 2] if len(given) == 2 else [1]
            positive = b.op("Greater", b.input(index), b.constant(0, "int32"))
            kept = b.op("Unsqueeze", positive, b.constant(axes))
        else:
            b.unwritten()
        biases.append(where(b, kept, value))
    return biases


def where(b: Body, kept: str, value: float) -> str:
    """0 where `kept`, else `value`."""
    return b.op("Where", kept, b.real(0), b.real(value))


def lowest(b: Body) -> float:
    return float(np.finfo(b.dtype).min)


def length(b: Body, heads: str) -> str:
    """The third dim, a scalar."""
    return b.op("Gather", b.op("Shape", heads), b.constant(2), axis=0)


def counted(b: Body, size: str, axes: list[int]) -> str:
    """0, 1, .. `size` - 1, with dims of 1 inserted."""
    numbers = b.op("Range", b.constant(0), size, b.constant(1))
    return b.op("Unsqueeze", numbers, b.constant(axes))


def sliced(b: Body, x: str, axis: int, first: int, last: int) -> str:
    return b.op("Slice", x, *(b.constant([n]) for n in (first, last, axis)))


BODIES: dict[str, Callable[[Body], None]] = {
    "Attention": _attention,
    "MultiHeadAttention": _multi_head,
    "QAttention": _quantized_attention,
}
