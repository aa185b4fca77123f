"""Samples become figures: which ones were undisturbed, and whether they allow a ratio.

A *round* holds one sample of each contender, taken one right after the other. Two contenders are
compared by the ratios within rounds, since what changes slowly (clock, neighbours in the cache)
then changes both sides.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

CLEAN_SPEED = 0.93
"""Below this part of its usual speed the processor was shared or throttled during a sample."""

SHARED_SPEED = 0.65
"""A processor whose usual speed is below this part of its peak is shared throughout. Wide vector
code may cost it up to a fifth of its clock, another thread on the same core costs about half."""

MIN_PAIRS = 7
"""Fewer undisturbed pairs than this say nothing about a ratio."""

MAX_SPREAD = 0.15
"""A ratio whose quartiles lie further apart than this part of it is not one number."""


@dataclass(frozen=True)
class Sample:
    """`seconds` per call; `speed` of the processor around it, as a part of its peak.

    `interruptions` counts involuntary context switches of the process and ticks that the
    hypervisor stole during the sample.
    """

    seconds: float
    speed: float
    interruptions: int = 0


Round = Mapping[str, Sample]


@dataclass(frozen=True)
class Timing:
    """Seconds per call over the clean samples, or over all where there are not enough clean ones.

    `noisy` is why the figures are not to be trusted, empty if they are.
    """

    minimum: float
    median: float
    clean: int
    taken: int
    noisy: str = ""


@dataclass(frozen=True)
class Ratio:
    """How many times the time of a contender is of ours: the median over pairs, and quartiles."""

    value: float
    low: float
    high: float
    pairs: int


@dataclass(frozen=True)
class Noisy:
    """No ratio, and why."""

    reason: str


def clean(rounds: Sequence[Round], name: str) -> list[bool]:
    """Per round, whether nothing disturbed the sample of contender `name`, as far as can be seen.

    Speeds are compared with what is usual for the contender: the clock depends on the code it runs.
    """
    samples = [turn[name] for turn in rounds]
    usual = statistics.quantiles([s.speed for s in samples] * 2, n=10)[-1]
    if usual < SHARED_SPEED:
        return [False] * len(samples)
    return [s.speed >= CLEAN_SPEED * usual and s.interruptions == 0 for s in samples]


def clean_pairs(rounds: Sequence[Round]) -> int:
    """In how many rounds all samples are clean."""
    return sum(map(all, zip(*(clean(rounds, name) for name in rounds[0])))) if rounds else 0


def timing(rounds: Sequence[Round], name: str) -> Timing:
    """The figures of one contender."""
    samples = [turn[name].seconds for turn in rounds]
    good = [seconds for seconds, is_clean in zip(samples, clean(rounds, name)) if is_clean]
    noisy = "" if len(good) >= MIN_PAIRS else f"{len(good)} of {len(samples)} samples undisturbed"
    used = samples if noisy else good
    return Timing(min(used), statistics.median(used), len(good), len(samples), noisy)


def ratio(rounds: Sequence[Round], ours: str, theirs: str) -> Ratio | Noisy:
    """Time of `theirs` over time of `ours`; above 1 ours is faster."""
    both = zip(rounds, clean(rounds, ours), clean(rounds, theirs))
    pairs = [turn[theirs].seconds / turn[ours].seconds for turn, a, b in both if a and b]
    if len(pairs) < MIN_PAIRS:
        return Noisy(f"{len(pairs)} of {len(rounds)} rounds undisturbed, {MIN_PAIRS} are needed")
    low, value, high = statistics.quantiles(pairs, n=4)
    if high - low > MAX_SPREAD * value:
        return Noisy(f"the middle half of the ratios goes from {low:.2f} to {high:.2f}")
    return Ratio(value, low, high, len(pairs))


def geometric_mean(values: Sequence[float]) -> float:
    """The geometric mean; NaN for no values."""
    return statistics.geometric_mean(values) if values else float("nan")
