"""How long a grid of blocks takes: in waves, each bound by what its blocks share, or by waiting."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from tvmext.arch import CudaArch

from .stream import Shares

L2_BYTES_PER_CYCLE = 48
"""What a multiprocessor reads from L2: 5120 bytes per cycle for 108 (A100 whitepaper, L2 cache)."""
SHARED_BYTES_PER_CYCLE = 128
"""32 banks of 4 bytes (CUDA C++ Programming Guide, Shared Memory)."""
LATENCY = 700
"""Cycles until what a block asks of device memory arrives, and its results have left: an estimate
from some 400 for a load (Jia et al., Dissecting the NVIDIA Volta GPU, arXiv 1804.06826)."""
UNHIDDEN = 1 / 8
"""What is seen of work that other work of the same block or its neighbours should hide: a guess."""


class Tiling(Protocol):
    """What a block of threads has, and takes of a multiprocessor."""

    @property
    def rows(self) -> int: ...
    @property
    def cols(self) -> int: ...
    @property
    def depth(self) -> int: ...
    @property
    def splits(self) -> int: ...
    @property
    def stream(self) -> int: ...
    @property
    def threads(self) -> int: ...
    @property
    def registers(self) -> int: ...
    def shared(self, dtype: str) -> int: ...


@dataclass(frozen=True)
class Cost:
    """Cycles of a block: `shared` and `alone` of each step of the sum, `once` of the rest.

    Blocks of a multiprocessor, `resident` at most, share its matrix units, its shared memory and
    its part of the bandwidth of L2; a block alone waits at every step, and for what it asked for.
    """

    shared: tuple[float, ...]
    alone: tuple[float, ...]
    once: float
    resident: int


def grid_cycles(blocks: int, steps: int, cost: Cost, arch: CudaArch) -> float:
    """Cycles of so many blocks of `steps` steps each."""
    total = 0.0
    left = blocks
    while left > 0:
        together = min(cost.resident, -(-left // arch.sms))
        full = left // (arch.sms * together) or 1
        step = overlapped([*(together * part for part in cost.shared), *cost.alone])
        total += full * (step * steps + cost.once)
        left -= full * arch.sms * together
    return total


def stream_cycles(shared: Shares, steps: int, cost: Cost, arch: CudaArch) -> float:
    """Cycles of blocks that stay and share out tiles of `steps` steps each."""
    assert isinstance(shared.tiles, int)
    assert isinstance(shared.blocks, int)
    assert isinstance(shared.rounds, int)
    together = min(cost.resident, -(-shared.blocks // arch.sms))
    own = -(-shared.tiles * steps // shared.blocks)
    # A share that is no whole number of tiles begins or ends inside of one more.
    touched = -(-own // steps) + (1 if own % steps else 0)
    step = overlapped([*(together * part for part in cost.shared), *cost.alone])
    rounds = shared.rounds
    return step * (own + rounds * steps) + cost.once * (touched + rounds)


def overlapped(parts: Sequence[float]) -> float:
    """The longest, and a part of the others, which are not hidden behind it all of the time."""
    longest = max(parts)
    return longest + UNHIDDEN * (sum(parts) - longest)
