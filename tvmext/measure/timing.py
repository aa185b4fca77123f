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

SETTLE_SECONDS = 0.25
TICK_SECONDS = 0.01
"""The clock of a process learns of its other threads with the ticks of the system, 1 to 10 ms."""

PROBES = 5
"""Of several threads, one is late now and then."""

WAKE_SECONDS = 0.04
"""Threads that wake may share a core until the system moves them, tens of ms later."""


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

    Before, between and after samples: probe, once all threads rest. Each sample: call to warm
    caches and wake threads, time a chunk of calls. The order is turned every round, so that nobody
    always comes after the same other.
    """
    paces = {name: _pace(call) for name, call in contenders.items()}
    names = list(contenders)
    raw: list[Round] = []
    rounds: list[Round] = []
    rate = _rate(machine)
    end = time.perf_counter() + seconds
    while not rounds or (clean_pairs(rounds) < enough and time.perf_counter() < end):
        turn = {}
        for name in names:
            sample = _sample(contenders[name], paces[name], machine.threads, interruptions, clock)
            settle(machine.threads)
            before, rate = rate, _rate(machine)
            turn[name] = replace(sample, speed=min(before, rate))
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
    call: Call, pace: _Pace, threads: int, interruptions: Callable[[], int], clock: Clock
) -> Sample:
    """A chunk of calls; its speed is for the caller to tell."""
    settle(threads)
    if threads > 1:
        _awake(call)
    elif pace.warm:
        call()
    interrupted = interruptions()
    start = clock()
    for _ in range(pace.count):
        call()
    took = clock() - start
    return Sample(took / pace.count, 0.0, interruptions() - interrupted)


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


def _rate(machine: Probe) -> float:
    """FLOP/s of the machine, with all its threads awake: the best of a few tries."""
    if machine.threads == 1:
        return machine.probe()
    _awake(machine.probe)
    return max(machine.probe() for _ in range(PROBES))


def _awake(call: Call) -> None:
    """Call until the threads of `call` have been spread over the cores."""
    end = time.perf_counter() + WAKE_SECONDS
    while time.perf_counter() < end:
        call()


def settle(threads: int) -> None:
    """Wait until no thread of this process is busy, for at most `SETTLE_SECONDS`.

    Thread pools spin for a while after a parallel call, TVM's for 5 ms as tvmext sets it, ONNX
    Runtime's for 45 ms, which would slow the next contender down.
    """
    if threads == 1:
        return
    end = time.perf_counter() + SETTLE_SECONDS
    while time.perf_counter() < end:
        busy = time.process_time()
        time.sleep(2 * TICK_SECONDS)
        if time.process_time() - busy < 0.1 * TICK_SECONDS:
            return
