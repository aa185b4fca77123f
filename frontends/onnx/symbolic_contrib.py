"""Symbolic rules of com.microsoft's operators whose bodies are written once shapes are known.

They are there for the sizes behind such an operator, of which other bodies may need some. What only
a result of the network has, such as the length of a cache, follows from the body.
"""

from __future__ import annotations

from collections.abc import Callable

from .symbolic_node import Node, Shape, Size, Value


def _attention(node: Node) -> list[Value] | None:
    """[batch, length, hidden]; weights are [in, 3 * hidden] or as the sizes say."""
    x, weights = node.shape(0), node.shape(1)
    if x is None or weights is None:
        return None
    sizes = node.attr("qkv_hidden_sizes")
    hidden = sizes[2] if sizes else _part(node, weights[1], 1, 3)
    dtype = node.dtype(3) if node.op_type == "QAttention" else node.dtype()
    return _with_cache(node, dtype, (*x[:2], hidden), 5)


def _multi_head(node: Node) -> list[Value] | None:
    x = node.shape(0)
    if x is None:
        return None
    if len(x) == 5:  # packed
        hidden: Size = x[2] * x[4]
    else:
        values = node.shape(2)
        hidden = x[2] if values is None or len(values) != 3 else values[2]
    return _with_cache(node, node.dtype(), (*x[:2], hidden), 4)


def _grouped(node: Node) -> list[Value] | None:
    x, heads = node.shape(0), node.attr("num_heads")
    if x is None:
        return None
    packed = node.input(1) is None
    parts = heads + 2 * node.attr("kv_num_heads")
    hidden = _part(node, x[2], heads, parts) if packed else x[2]
    return _with_cache(node, node.dtype(), (*x[:2], hidden), 4)


def _part(node: Node, size: Size, some: int, parts: int) -> Size:
    return size // parts * some if isinstance(size, int) else node.unknown(2)


def _with_cache(node: Node, dtype: str, shape: Shape, rank: int) -> list[Value]:
    """The first result, and others of `rank` dims."""
    others = [
        Value(dtype, tuple(node.unknown(axis, k) for axis in range(rank)))
        for k in range(1, len(node.proto.output))
    ]
    return [node.value(dtype, shape), *others]


def _rotary(node: Node) -> Value | None:
    return node.value(node.dtype(), node.shape())


def _matmul(node: Node) -> Value | None:
    a, b = node.shape(0), node.shape(1)
    if not a or not b or len(a) < 2 or len(b) < 2:
        return None
    rows = a[-1] if node.attr("transA", 0) else a[-2]
    columns = b[-2] if node.attr("transB", 0) else b[-1]
    return node.value(node.dtype(), (*node.broadcast(a[:-2], b[:-2]), rows, columns))


RULES: dict[str, Callable[[Node], Value | list[Value] | None]] = {
    "Attention": _attention,
    "FusedMatMul": _matmul,
    "FusedMatMulActivation": _matmul,
    "GroupQueryAttention": _grouped,
    "MultiHeadAttention": _multi_head,
    "QAttention": _attention,
    "RotaryEmbedding": _rotary,
    "TransposeMatMul": _matmul,
}
