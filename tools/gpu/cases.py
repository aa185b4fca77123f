"""What is timed on a GPU: 200 matrix products, 60 convolutions, 30 attentions, as plain data."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass

BYTES = {"float16": 2, "bfloat16": 2, "tfloat32": 4, "float32": 4}

# MikPoly (ASPLOS 2024), table of GEMM ranges: (M, N, K), each from-to, and how many of its cases.
MIKPOLY = (
    ((2, 10752), (1, 48000), (128, 500000), 166),
    ((1, 256), (1, 256), (1, 256), 299),
    ((1, 256), (1, 256), (257, 65536), 218),
    ((1, 256), (257, 1024), (1, 65536), 232),
    ((1, 256), (1025, 65536), (1, 65536), 97),
    ((257, 1024), (1, 256), (1, 65536), 64),
    ((257, 1024), (257, 65536), (1, 65536), 87),
    ((1025, 8192), (1, 256), (1, 65536), 65),
    ((1025, 8192), (257, 8192), (1, 65536), 136),
    ((8193, 65536), (1, 8192), (1, 8192), 69),
)
SHAPES = 200
LARGE = 2 << 30
"""Multiply-adds from which on a product counts as large; smaller ones are "irregular"."""
MOST = 1 << 40
"""Multiply-adds that no product of the list exceeds: a few milliseconds of an H100."""
MOST_ELEMENTS = 1 << 30

# (name, channels in, channels out, window, stride, size of the layer at 224 x 224).
LAYERS = (
    ("alexnet-11", 3, 64, 11, 4, 224),
    ("alexnet-5", 64, 192, 5, 1, 27),
    ("alexnet-3", 192, 384, 3, 1, 13),
    ("googlenet-7", 3, 64, 7, 2, 224),
    ("googlenet-1", 192, 64, 1, 1, 28),
    ("googlenet-3", 96, 128, 3, 1, 28),
    ("resnet-1a", 64, 256, 1, 1, 56),
    ("resnet-1b", 1024, 256, 1, 1, 14),
    ("resnet-3a", 64, 64, 3, 1, 56),
    ("resnet-3b", 128, 128, 3, 1, 28),
    ("resnet-3s", 128, 128, 3, 2, 56),
    ("resnet-3c", 512, 512, 3, 1, 7),
    ("vgg-3a", 64, 128, 3, 1, 112),
    ("vgg-3b", 256, 256, 3, 1, 56),
    ("vgg-3c", 512, 512, 3, 1, 14),
)
BATCHES = (1, 8, 32, 128)


@dataclass(frozen=True)
class Case:
    """One thing to time. `sizes` are those that `family` knows."""

    family: str
    name: str
    dtype: str
    sizes: Mapping[str, int]
    flops: float
    bytes: float

    def to_json(self) -> dict[str, object]:
        return asdict(self)


def cases() -> list[Case]:
    """All of them, in a fixed order."""
    return [*gemms(), *convolutions(), *attentions()]


def gemms() -> Iterator[Case]:
    """`SHAPES` products, as many of each range as in the paper, in float16, bfloat16 and tf32."""
    draw = random.Random(0)
    total = sum(count for *_, count in MIKPOLY)
    made = 0
    for number, (rows, cols, depth, count) in enumerate(MIKPOLY):
        last = number == len(MIKPOLY) - 1
        wanted = SHAPES - made if last else round(SHAPES * count / total)
        made += wanted
        for _ in range(wanted):
            m, n, k = _drawn(draw, rows, cols, depth)
            for dtype in ("float16", "bfloat16", "tfloat32"):
                yield gemm(m, n, k, dtype)


def gemm(m: int, n: int, k: int, dtype: str) -> Case:
    size = BYTES[dtype] * (m * k + k * n + m * n)
    return Case(
        "gemm", f"gemm-{m}x{n}x{k}-{dtype}", dtype, {"m": m, "n": n, "k": k}, 2.0 * m * n * k, size
    )


def _drawn(draw: random.Random, *ranges: tuple[int, int]) -> tuple[int, ...]:
    """Sizes spread evenly over the orders of magnitude, small enough to run."""
    while True:
        sizes = tuple(
            round(math.exp(draw.uniform(math.log(low), math.log(high)))) for low, high in ranges
        )
        m, n, k = sizes
        if m * n * k <= MOST and max(m * k, k * n, m * n) <= MOST_ELEMENTS:
            return sizes


def convolutions() -> Iterator[Case]:
    """Channels-last, padded to keep their size, float16."""
    for batch in BATCHES:
        for name, c, o, window, stride, size in LAYERS:
            yield convolution(name, batch, c, o, window, stride, size)


def convolution(
    name: str,
    batch: int,
    c: int,
    o: int,
    window: int,
    stride: int,
    size: int,
    dtype: str = "float16",
) -> Case:
    out = (size + 2 * (window // 2) - window) // stride + 1
    moved = batch * size * size * c + o * window * window * c + batch * out * out * o
    return Case(
        "conv",
        f"conv-{name}-b{batch}",
        dtype,
        {"batch": batch, "c": c, "o": o, "window": window, "stride": stride, "size": size},
        2.0 * batch * out * out * o * c * window * window,
        BYTES[dtype] * moved,
    )


def attentions() -> Iterator[Case]:
    """Prefill (as many queries as keys, causal and not) and decode (one query), float16."""
    for batch, heads, dim in ((1, 12, 64), (4, 16, 64), (1, 32, 128)):
        for seq in (128, 512, 1024, 4096):
            for causal in (0, 1) if seq > 128 else (0,):
                yield attention(batch, heads, seq, seq, dim, causal)
    for batch, heads, dim in ((1, 32, 128), (16, 32, 128), (1, 12, 64)):
        for keys in (512, 2048, 8192):
            yield attention(batch, heads, 1, keys, dim, 0)


def attention(
    batch: int, heads: int, queries: int, keys: int, dim: int, causal: int, dtype: str = "float16"
) -> Case:
    kind = "decode" if queries == 1 else "causal" if causal else "full"
    work = 4.0 * batch * heads * queries * keys * dim / (2 if causal else 1)
    sizes = {
        "batch": batch,
        "heads": heads,
        "queries": queries,
        "keys": keys,
        "dim": dim,
        "causal": causal,
    }
    return Case(
        "attention",
        f"attention-{kind}-b{batch}h{heads}q{queries}k{keys}d{dim}",
        dtype,
        sizes,
        work,
        BYTES[dtype] * batch * heads * dim * 2 * (queries + keys),
    )
