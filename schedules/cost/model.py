"""Models that price candidates: the analytic one, and the learned one that corrects it.

    seconds = analytic seconds * exp(mean over members of forest(features))

The learned model is an ensemble of boosted trees (XGBoost, trained by tools/train), whose members
saw different workloads. It takes another candidate than the analytic price does only where that
gains on average, and none outside of what was measured.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from .features import features
from .forest import Forest
from .terms import Terms

LEAST_GAIN = 0.01
"""The logarithm of times below which a gain is not worth leaving the analytic choice."""

BEYOND = 0.05
"""The share of its range that a feature may lie outside of it."""


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
    """`low` and `high` are the ranges of the features in the training set.

    `offsets` has, for each family, what the logarithm of measured over analytic seconds is on
    average: outside of the ranges the price is the analytic one times that. Families that were not
    measured have NaN, and stay analytic.
    """

    forest: Forest
    low: np.ndarray
    high: np.ndarray
    offsets: np.ndarray

    def seconds(self, terms: Terms) -> np.ndarray:
        values = features(terms)
        family = terms.column("family").astype(int)
        offset = np.nan_to_num(self.offsets[family])
        inside = self.knows(values, family)
        learned = self.forest.predict(values).mean(axis=0)
        return terms.seconds * np.exp(np.where(inside, learned, offset))

    def pick(self, terms: Terms) -> int:
        values = features(terms)
        inside = self.knows(values, terms.column("family").astype(int))
        if not inside[0]:
            return 0
        members = self.forest.predict(values) + np.log(terms.seconds)
        gains = (members[:, :1] - members).mean(axis=0)
        best = int(np.argmax(np.where(inside, gains, -np.inf)))
        return best if gains[best] > LEAST_GAIN else 0

    def knows(self, values: np.ndarray, family: np.ndarray) -> np.ndarray:
        """Which candidates lie in the ranges of the training set, each feature by itself."""
        room = BEYOND * (self.high - self.low)
        inside = ((values >= self.low - room) & (values <= self.high + room)).all(axis=1)
        return inside & ~np.isnan(self.offsets[family])
