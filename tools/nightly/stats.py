"""Whether samples taken in turns show a slowdown, and the smallest one that they could show.

A comparison is a list of logarithms of *new time / old time*, one for each round in which both were
undisturbed. The question is not whether the median is 0, which it never is, but whether it is above
a least effect: Wilcoxon's signed-rank test (exact, one-sided) of the values less that effect, which
needs no distribution and shrugs off outliers. What it cannot see are biases that last as long as a
process, such as where memory came to lie: what is suspicious is measured again in fresh processes,
and has to be so each time. The chance that three values of p are all below x is x^3, which is what
Holm's correction (1979) of all comparisons of a night gets.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import NormalDist
from typing import Any, TypeVar

import numpy as np

LEAST = 0.03
"""A slowdown below this is not worth a bisection: code that moves by a cache line makes as much."""

ALPHA = 0.01
"""The chance that a run of the same code raises any alarm, over all its comparisons."""

SUSPECT = 0.01
"""One comparison by itself: below this it is measured again."""

REPEATS = 2
"""Fresh processes in which a suspicious comparison has to hold."""

MIN_PAIRS = 7
POWER = 0.9
EXACT = 60
"""Up to so many pairs the distribution of rank sums is counted out."""

NORMAL = NormalDist()
Key = TypeVar("Key")


@dataclass(frozen=True)
class Comparison:
    """`effect` is new / old - 1, `low` and `high` its 95 % interval, `p` for at most `LEAST`.

    Without enough pairs `p` is 1.
    """

    effect: float
    low: float
    high: float
    p: float
    pairs: int
    spread: float

    @property
    def noisy(self) -> bool:
        return self.pairs < MIN_PAIRS

    @property
    def smallest(self) -> float:
        """The least effect that would be found, and found again, in nine of ten nights."""
        sure = NORMAL.inv_cdf(1 - SUSPECT)
        # Ranks of few pairs reach far tails later than a normal sum does.
        pairs = self.pairs - sure**2 / 2
        if self.noisy or pairs < 1:
            return math.inf
        each = POWER ** (1 / (1 + REPEATS))
        # 3/pi: the efficiency of the signed-rank test on normal noise.
        error = self.spread * math.sqrt(math.pi / 3 / pairs)
        return math.expm1(math.log1p(LEAST) + (sure + NORMAL.inv_cdf(each)) * error)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def compare(logs: Sequence[float], least: float = LEAST) -> Comparison:
    """What a list of ln(new / old) says."""
    values = independent(logs)
    if not values:
        return Comparison(0.0, -1.0, math.inf, 1.0, 0, math.inf)
    middle = statistics.median(values)
    spread = 1.4826 * statistics.median(abs(value - middle) for value in values)
    low, high = _interval(values)
    enough = len(values) >= MIN_PAIRS
    p = signed_rank([value - math.log1p(least) for value in values]) if enough else 1.0
    ends = math.expm1(middle), math.expm1(low), math.expm1(high)
    return Comparison(*ends, p, len(values), spread)


def independent(logs: Sequence[float]) -> list[float]:
    """Means of neighbours, where neighbours are alike: a slow drift is not many samples."""
    values = [float(value) for value in logs]
    if len(values) < 2 * MIN_PAIRS:
        return values
    middle = float(np.median(values))
    centred = np.clip(np.array(values) - middle, *_within(values))
    power = float(centred @ centred)
    likeness = float(centred[1:] @ centred[:-1]) / power if power else 0.0
    if likeness < 2 / math.sqrt(len(values)):
        return values
    size = min(math.ceil((1 + likeness) / (1 - likeness)), len(values) // MIN_PAIRS)
    starts = range(0, len(values) - size + 1, size)
    return [middle + float(centred[k : k + size].mean()) for k in starts]


def _within(values: Sequence[float]) -> tuple[float, float]:
    """Four robust deviations to either side: an outlier says nothing about its neighbours."""
    middle = statistics.median(values)
    width = 4 * 1.4826 * statistics.median(abs(value - middle) for value in values)
    return -width, width


def _interval(values: Sequence[float]) -> tuple[float, float]:
    """A 95 % interval of the median by order statistics; the whole range for few values."""
    found = sorted(values)
    count = len(found)
    skip = max(0, math.floor(count / 2 - 1.96 * math.sqrt(count) / 2))
    return found[skip], found[count - 1 - skip]


def signed_rank(values: Sequence[float]) -> float:
    """The chance of so high ranks of positive values, were the values symmetric around 0."""
    found = np.array([value for value in values if value != 0.0])
    count = len(found)
    if not count:
        return 1.0
    ranks = np.argsort(np.argsort(np.abs(found))) + 1
    total = int(ranks[found > 0].sum())
    most = count * (count + 1) // 2
    if count > EXACT:
        mean, deviation = most / 2, math.sqrt(most * (2 * count + 1) / 12)
        return 1 - NORMAL.cdf((total - 0.5 - mean) / deviation)
    chances = np.zeros(most + 1)
    chances[0] = 1.0
    for rank in range(1, count + 1):  # each rank is in the sum or not, with equal chances
        shifted = np.zeros_like(chances)
        shifted[rank:] = chances[:-rank]
        chances = (chances + shifted) / 2
    return float(chances[total:].sum())


def holm(chances: Mapping[Key, float], alpha: float = ALPHA) -> list[Key]:
    """The keys whose null hypothesis falls, with `alpha` the chance of one false among all."""
    found: list[Key] = []
    left = len(chances)
    for key, chance in sorted(chances.items(), key=lambda item: item[1]):
        if chance > alpha / left:
            break
        found.append(key)
        left -= 1
    return found


def slower(comparison: Comparison, again: Sequence[Comparison]) -> float:
    """One chance for a comparison and its repetitions: that none is less convincing; 1 without."""
    if len(again) < REPEATS:
        return 1.0
    return float(max(one.p for one in (comparison, *again)) ** (1 + len(again)))
