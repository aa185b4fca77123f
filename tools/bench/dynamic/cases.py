"""The shapes of MikPoly's tables, drawn by a seed: matrix products and convolutions."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from typing import TypeAlias, TypeVar

Range = tuple[int, int]

GEMMS: tuple[tuple[Range, Range, Range, int], ...] = (
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
"""Ranges of M, N and K, and how many of MikPoly's 1433 products lie in them."""

CONVS: tuple[tuple[str, int, int, int, int, int, Range], ...] = (
    ("alexnet", 3, 64, 11, 4, 2, (64, 640)),
    ("alexnet", 64, 192, 5, 1, 2, (7, 79)),
    ("alexnet", 192, 384, 3, 1, 1, (3, 39)),
    ("googlenet", 3, 64, 7, 2, 3, (64, 640)),
    ("googlenet", 64, 64, 1, 1, 0, (16, 160)),
    ("googlenet", 64, 192, 3, 1, 1, (16, 160)),
    ("googlenet", 256, 128, 1, 1, 0, (8, 80)),
    ("googlenet", 96, 128, 3, 1, 1, (8, 80)),
    ("googlenet", 512, 160, 1, 1, 0, (4, 40)),
    ("googlenet", 144, 288, 3, 1, 1, (4, 40)),
    ("googlenet", 832, 384, 1, 1, 0, (2, 20)),
    ("googlenet", 192, 384, 3, 1, 1, (2, 20)),
    ("resnet18", 64, 64, 3, 1, 1, (16, 160)),
    ("resnet18", 64, 128, 1, 2, 0, (16, 160)),
    ("resnet18", 64, 128, 3, 2, 1, (16, 160)),
    ("resnet18", 128, 128, 3, 1, 1, (8, 80)),
    ("resnet18", 256, 256, 3, 1, 1, (4, 40)),
    ("resnet18", 256, 512, 3, 2, 1, (4, 40)),
    ("resnet18", 512, 512, 3, 1, 1, (2, 20)),
    ("vgg11", 3, 64, 3, 1, 1, (64, 640)),
    ("vgg11", 64, 128, 3, 1, 1, (32, 320)),
    ("vgg11", 256, 256, 3, 1, 1, (16, 160)),
    ("vgg11", 512, 512, 3, 1, 1, (8, 80)),
    ("vgg11", 512, 512, 3, 1, 1, (4, 40)),
)
"""Network, channels in and out, window, stride, padding, and the range of the image's side."""

MOST_ELEMENTS = 1 << 24
"""Elements of one matrix; MikPoly's largest have 3e9, more than this project's machines hold."""

MOST_PRODUCTS = 1 << 31
"""Multiplications of one case, some 40 ms of one core, so that many turns fit a measurement."""


@dataclass(frozen=True)
class Gemm:
    """``[m, k] x [k, n]``: m is free, and n and k too unless the second operand is a `weight`."""

    m: int
    n: int
    k: int
    weight: bool

    @property
    def name(self) -> str:
        return f"{'weight' if self.weight else 'any'}/{self.m}x{self.n}x{self.k}"

    @property
    def flops(self) -> float:
        return 2.0 * self.m * self.n * self.k


@dataclass(frozen=True)
class Conv:
    """A convolution with bias and ReLU; batch, height and width are free."""

    net: str
    inputs: int
    outputs: int
    window: int
    stride: int
    padding: int
    batch: int
    side: int

    @property
    def name(self) -> str:
        layer = f"{self.net}:{self.inputs}-{self.outputs},k{self.window}"
        layer += f",s{self.stride}" if self.stride > 1 else ""
        return f"conv/{layer}/{self.batch}x{self.side}"

    @property
    def out_side(self) -> int:
        return (self.side + 2 * self.padding - self.window) // self.stride + 1

    @property
    def flops(self) -> float:
        positions = self.batch * self.out_side**2
        return 2.0 * positions * self.window**2 * self.inputs * self.outputs


Case: TypeAlias = Gemm | Conv
Drawn = TypeVar("Drawn")


def gemms(count: int, seed: int = 0) -> list[Gemm]:
    """`count` products, from every range in its share; half have a weight, half have none."""
    draw = random.Random(seed)
    rows = [row[:3] for row in GEMMS]
    total = sum(row[3] for row in GEMMS)
    shares = [max(1, round(count * row[3] / total)) for row in GEMMS]
    turns = [row for row, share in zip(rows, shares) for _ in range(share)]
    weight = cycle([True, False])

    def one(ranges: tuple[Range, Range, Range]) -> Gemm:
        fixed = next(weight)
        return _drawn(lambda: Gemm(*(_between(draw, *r) for r in ranges), fixed), _fits)

    return [one(ranges) for ranges in islice(cycle(turns), count)]


def convs(count: int, seed: int = 0) -> list[Conv]:
    """`count` convolutions: layer after layer, batch 2^0 to 2^7, ten sides of its range."""
    draw = random.Random(seed)

    def one(row: tuple[str, int, int, int, int, int, Range]) -> Conv:
        *layer, (low, high) = row
        step = (high - low) // 9

        def any_size() -> Conv:
            return Conv(*layer, 1 << draw.randint(0, 7), low + step * draw.randint(0, 9))  # type: ignore[misc]

        return _drawn(any_size, _small)

    return [one(row) for row in islice(cycle(CONVS), count)]


def _between(draw: random.Random, low: int, high: int) -> int:
    """A whole number, by its logarithm."""
    return round(math.exp(draw.uniform(math.log(low), math.log(high))))


def _fits(case: Gemm) -> bool:
    largest = max(case.m * case.n, case.n * case.k, case.m * case.k)
    return largest <= MOST_ELEMENTS and case.flops <= 2 * MOST_PRODUCTS


def _small(case: Conv) -> bool:
    largest = max(case.inputs * case.side**2, case.outputs * case.out_side**2)
    return case.batch * largest <= MOST_ELEMENTS and case.flops <= 2 * MOST_PRODUCTS


def _drawn(once: Callable[[], Drawn], fits: Callable[[Drawn], bool]) -> Drawn:
    """The first that fits."""
    return next(filter(fits, _forever(once)))


def _forever(once: Callable[[], Drawn]) -> Iterator[Drawn]:
    while True:
        yield once()


def spread(cases: Sequence[Drawn], count: int) -> list[Drawn]:
    """`count` of the cases, evenly spread over their list."""
    return [cases[place * len(cases) // count] for place in range(min(count, len(cases)))]
