"""Candidates of a kernel timed in turns.

    warm up all; then rounds: for every candidate a chunk of calls; who begins changes

The time of a candidate is the first quartile of its samples: what disturbs makes them longer, never
shorter. What disturbs for longer than a round slows all candidates of it alike, so that rounds are
brought to one level first (of two measurements of the same kernels beside other threads 0.889
instead of 0.864 of the pairs had the same order; 0.857 by medians, 0.877 by minima, 70 workloads).
A sample that the processor's probe or the operating system saw disturbed does not count.
Where the fastest of what is left are too far apart or too few the candidate takes further rounds,
and stays marked as noisy if they do not help.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import tvm

from .samples import CLEAN_SPEED

CHUNK_SECONDS = 6e-4
ROUNDS, MORE_ROUNDS = 7, 8
MOST_SPREAD = 0.04
"""Of the fastest quarter of the samples, as a share of their longest."""

LEAST_LEVEL = 4
"""Candidates of a round that tell at what level it was."""

LONGEST = 0.25
"""Seconds of a call above which a candidate is left alone after its warm-up: it is no choice."""

POOL = 1 << 20
"""Random numbers that arrays are filled with, again and again."""


Sample = tuple[float, bool]
"""Seconds, and whether nothing was seen to disturb."""


class DeviceLost(RuntimeError):
    """The device takes no more work in this process."""


class Device(Protocol):
    """What candidates run on."""

    name: str
    threads: int

    def load(self, path: Path) -> Any: ...

    def array(self, shape: list[int], dtype: str) -> Any: ...

    def seconds(self, library: Any, symbol: str, arguments: list[Any], number: int) -> float:
        """Of one call, on average over `number`."""

    def undisturbed(self) -> bool:
        """Whether nothing was noticed since the last question."""


class Local:
    """This machine. Calls are timed in C++; a probe of the clock tells what is disturbed."""

    def __init__(self, threads: int = 1) -> None:
        from .host import cpu_name, interruptions
        from .machine import Machine

        self.machine = Machine(threads)
        self.name, self.threads = cpu_name(), threads
        self._interruptions = interruptions(threads)
        self._seen = self._interruptions()
        self._pool = pool()

    def load(self, path: Path) -> Any:
        return tvm.runtime.load_module(str(path))

    def array(self, shape: list[int], dtype: str) -> Any:
        return tvm.runtime.tensor(filled(self._pool, shape, dtype))

    def seconds(self, library: Any, symbol: str, arguments: list[Any], number: int) -> float:
        timer = library.time_evaluator(symbol, tvm.cpu(), number=number, repeat=1)
        return float(timer(*arguments).mean)

    def undisturbed(self) -> bool:
        before, self._seen = self._seen, self._interruptions()
        rate = self.machine.probe()
        return self._seen == before and rate >= CLEAN_SPEED * self.machine.peak


def timed(library: Any, calls: Mapping[str, list[Any]], device: Device) -> dict[str, list[Sample]]:
    """(seconds, undisturbed) of all samples of the kernels of a library, by symbol, levelled."""
    samples: dict[str, list[Sample]] = {name: [] for name in calls}
    paces = {}
    for name, arguments in calls.items():
        device.seconds(library, name, arguments, 1)
        once = device.seconds(library, name, arguments, 1)
        paces[name] = max(1, round(CHUNK_SECONDS / once))
        if once > LONGEST:
            samples[name] = [(once, True)]
    device.undisturbed()
    names = [name for name in calls if not samples[name]]
    for turn in range(ROUNDS + MORE_ROUNDS):
        if turn >= ROUNDS:
            found = levelled(samples)
            names = [n for n in names if summary(found[n])["noisy"]]
        for name in names:
            took = device.seconds(library, name, calls[name], paces[name])
            samples[name].append((took, device.undisturbed()))
        names = [*names[1:], *names[:1]]
    return levelled(samples)


def levelled(samples: Mapping[str, list[Sample]]) -> dict[str, list[Sample]]:
    """`samples`, those of a round divided by its level: the median, over its candidates, of what a
    sample is of its candidate's median.

    The n-th sample of a candidate is of the n-th round; rounds of few candidates stay as they are.
    """
    usual = {name: statistics.median(t for t, _ in own) for name, own in samples.items()}
    levels = []
    for turn in range(max(map(len, samples.values()), default=0)):
        level = [own[turn][0] / usual[name] for name, own in samples.items() if len(own) > turn]
        levels.append(statistics.median(level) if len(level) >= LEAST_LEVEL else 1.0)
    return {
        name: [(seconds / level, clean) for (seconds, clean), level in zip(own, levels)]
        for name, own in samples.items()
    }


def summary(samples: Sequence[Sample]) -> dict[str, Any]:
    """ "seconds" and what else is to be known of a candidate's samples."""
    clean = [seconds for seconds, is_clean in samples if is_clean]
    used = clean if len(clean) >= 3 else [seconds for seconds, _ in samples]
    quartile = statistics.quantiles(used, n=4)[0] if len(used) > 1 else used[0]
    quartile = max(quartile, min(used))  # of three samples it would be extrapolated
    spread = 1 - min(used) / quartile
    return {
        "seconds": quartile,
        "least": min(used),
        "spread": spread,
        "samples": len(used),
        "noisy": len(samples) > 1 and (len(clean) < 3 or spread > MOST_SPREAD),
    }


def pool() -> np.ndarray:
    return np.random.default_rng(0).standard_normal(POOL, np.float32)


def filled(pool: np.ndarray, shape: list[int], dtype: str) -> np.ndarray:
    """Numbers of a normal distribution; for integers, zeros: indices have to be inside."""
    if not dtype.startswith("float"):
        return np.zeros(shape, dtype)
    return np.resize(pool, shape).astype(dtype, copy=False)
