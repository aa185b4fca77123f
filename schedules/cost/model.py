"""Models that price candidates: the analytic one, and the learned one that corrects it.

    seconds = analytic seconds * exp(mean over members of the family's forest(features))

The learned model has for families that compete (`GROUPS`) an ensemble of boosted trees (XGBoost,
trained by tools/train), whose members saw different workloads. It takes another candidate than the
analytic price does only where that gains on average, and none outside of what was measured.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from .features import features
from .forest import Forest
from .terms import FAMILIES, Terms

GROUPS = (
    ("gemm",),
    ("conv", "winograd"),
    ("depthwise",),
    ("attention",),
    ("rows", "map"),
    ("mma",),
)
"""Families whose candidates are priced by the same trees: of one kernel, or of like ones."""

LEAST_GAIN = 0.01
"""The logarithm of times below which a gain is not worth leaving the analytic choice."""

BEYOND = 0.05
"""The share of its range that a feature may lie outside of it."""


GROUP_OF = np.array([[name in group for group in GROUPS].index(True) for name in FAMILIES])
"""Of each family."""


class CostModel(Protocol):
    """`seconds` prices every candidate; `pick` is the place of the one to take.

    The first candidate is the rule's own choice.
    """

    def seconds(self, terms: Terms) -> np.ndarray: ...

    def pick(self, terms: Terms) -> int: ...


class Analytic:
    """The price of each rule, and its choice."""

    def seconds(self, terms: Terms) -> np.ndarray:
        return terms.seconds

    def pick(self, _terms: Terms) -> int:
        return 0


@dataclass(frozen=True, eq=False)
class Learned:
    """`forests` are those of `GROUPS`, None for a group that was not measured.

    `low` and `high` are the ranges of the features in the training set.

    `offsets` has, for each family, what the logarithm of measured over analytic seconds is on
    average: outside of the ranges the price is the analytic one times that. Families that were not
    measured have NaN, and stay analytic.
    """

    forests: tuple[Forest | None, ...]
    low: np.ndarray
    high: np.ndarray
    offsets: np.ndarray

    def seconds(self, terms: Terms) -> np.ndarray:
        values = features(terms)
        family = terms.column("family").astype(int)
        offset = np.nan_to_num(self.offsets[family])
        inside = self.knows(values, family)
        learned = self.members(values, family).mean(axis=0)
        return terms.seconds * np.exp(np.where(inside, learned, offset))

    def pick(self, terms: Terms) -> int:
        values = features(terms)
        family = terms.column("family").astype(int)
        inside = self.knows(values, family)
        if not inside[0]:
            return 0
        members = self.members(values, family) + np.log(terms.seconds)
        gains = (members[:, :1] - members).mean(axis=0)
        best = int(np.argmax(np.where(inside, gains, -np.inf)))
        return best if gains[best] > LEAST_GAIN else 0

    def members(self, values: np.ndarray, family: np.ndarray) -> np.ndarray:
        """[members, candidates] of corrections, 0 where there is no forest."""
        found = np.zeros((max(f.members for f in self.forests if f), len(values)))
        for group, forest in enumerate(self.forests):
            own = np.flatnonzero(GROUP_OF[family] == group)
            if forest and len(own):
                found[:, own] = forest.predict(values[own])
        return found

    def knows(self, values: np.ndarray, family: np.ndarray) -> np.ndarray:
        """Which candidates lie in the ranges of the training set, each feature by itself."""
        room = BEYOND * (self.high - self.low)
        inside = ((values >= self.low - room) & (values <= self.high + room)).all(axis=1)
        return inside & ~np.isnan(self.offsets[family])
