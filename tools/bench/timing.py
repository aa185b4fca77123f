"""Contenders take turns: the measuring loop."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Protocol

from .samples import Round, Sample, clean_pairs

Call = Callable[[], object]
Clock = Callable[[], float]

CHUNK_SECONDS = 2e-3
"""Calls are repeated to this length: well below a scheduler's time slice, well above the clock's
resolution and the price of waking threads."""

LONG_SECONDS = 20e-3
"""A call of this length warms the caches for itself: what came before no longer shows."""

ENOUGH_PAIRS = 25
SETTLE_SECONDS = 0.05


class Probe(Protocol):
    """What `measure` asks of a machine (machine.Machine)."""

    threads: int

    @property
    def peak(self) -> float: ...

    def probe(self) -> float: ...


def measure(
    contenders: Mapping[str, Call],
    machine: Probe,
    interruptions: Callable[[], int],
    *,
    seconds: float = 3.0,
    enough: int = ENOUGH_PAIRS,
    clock: Clock = time.perf_counter,
) -> list[Round]:
    """Rounds of samples, until `enough` rounds are clean or `seconds` are over.

    Each sample: probe, let its threads come to rest, call once to warm caches and wake threads
    (unless calls are long), time a chunk of calls, let their threads rest, probe. The order is
    turned every round, so that nobody always comes after the same other.
    """
    paces = {name: _pace(call) for name, call in contenders.items()}
    names = list(contenders)
    raw: list[Round] = []
    rounds: list[Round] = []
    end = time.perf_counter() + seconds
    while not rounds or (clean_pairs(rounds) < enough and time.perf_counter() < end):
        turn = {}
        for name in names:
            turn[name] = _sample(contenders[name], paces[name], machine, interruptions, clock)
        raw.append(turn)
        names = [*names[1:], names[0]]
        if len(raw) % 5 == 0 or time.perf_counter() >= end:
            rounds = _judged(raw, machine.peak)
    return rounds


def _judged(raw: list[Round], peak: float) -> list[Round]:
    """The samples with speeds relative to `peak`, which is better known the later it is."""
    return [
        {name: replace(sample, speed=sample.speed / peak) for name, sample in turn.items()}
        for turn in raw
    ]


@dataclass(frozen=True)
class _Pace:
    """How many calls make a chunk, and whether one more comes before it."""

    count: int
    warm: bool


def _sample(
    call: Call, pace: _Pace, machine: Probe, interruptions: Callable[[], int], clock: Clock
) -> Sample:
    """A chunk of calls; the speed is the lower of the FLOP/s before and after."""
    rate = machine.probe()
    settle(machine.threads)
    if pace.warm:
        call()
    interrupted = interruptions()
    start = clock()
    for _ in range(pace.count):
        call()
    took = clock() - start
    interrupted = interruptions() - interrupted
    settle(machine.threads)
    rate = min(rate, machine.probe())
    return Sample(took / pace.count, rate, interrupted)


def _pace(call: Call) -> _Pace:
    """Call a few times, which is the warm-up, and see how long it takes."""
    best = float("inf")
    start = time.perf_counter()
    for turn in range(20):
        begin = time.perf_counter()
        call()
        best = min(best, time.perf_counter() - begin)
        if turn >= 2 and time.perf_counter() - start > 10 * CHUNK_SECONDS:
            break
    return _Pace(max(1, round(CHUNK_SECONDS / best)), best < LONG_SECONDS)


def settle(threads: int) -> None:
    """Wait until no thread of this process is busy, for at most `SETTLE_SECONDS`.

    Thread pools spin for a while after a parallel call, which would slow the next contender down.
    TVM's would spin for 50 ms; the worker (worker.py) shortens that to what fits in here.
    """
    if threads == 1:
        return
    end = time.perf_counter() + SETTLE_SECONDS
    while time.perf_counter() < end:
        busy = time.process_time()
        time.sleep(0.5e-3)
        if time.process_time() - busy < 0.1e-3:
            return
