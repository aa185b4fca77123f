"""Models that price candidates: the analytic one, and the learned one that corrects it.

    seconds = analytic seconds * exp((trees(features) + perceptrons(features)) / 2)

The learned model has for families that compete (`GROUPS`) an ensemble of boosted trees (XGBoost)
and one of multilayer perceptrons, trained by tools/train; either takes the mean over its members.
It leaves the rule's choice only where that gains by the mean of both, and never outside of what was
measured, nor for the other method of a convolution. Two things are the rule's alone, for kernels
that are measured by themselves say nothing of them: tiles of Winograd's method, which is measured
mostly with F(4, 3), where networks take F(2, 3) (U-Net took 1.25 of its time with AVX2), and
whether the next panel of a weight is fetched ahead: a weight of one kernel stays in L3, where
fetching gains nothing, those of a network come from memory (T5 took 1.1 of its time).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from .features import features
from .forest import Forest
from .perceptron import Perceptrons
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
    """`forests` and `perceptrons` are those of `GROUPS`, None for one that was not measured.

    `low` and `high` are the ranges of the features in the training set, a row for each kind of
    machine: what lies between two of them is neither.

    `offsets` has, for each family, what the logarithm of measured over analytic seconds is on
    average: outside of the ranges the price is the analytic one times that. Families that were not
    measured have NaN, and stay analytic.
    """

    forests: tuple[Forest | None, ...]
    perceptrons: tuple[Perceptrons | None, ...]
    low: np.ndarray
    high: np.ndarray
    offsets: np.ndarray

    def seconds(self, terms: Terms) -> np.ndarray:
        values = features(terms)
        family = terms.column("family").astype(int)
        offset = np.nan_to_num(self.offsets[family])
        inside = self.knows(values, family)
        learned = self.corrections(values, family)
        return terms.seconds * np.exp(np.where(inside, learned, offset))

    def pick(self, terms: Terms) -> int:
        values = features(terms)
        family = terms.column("family").astype(int)
        ahead = terms.column("ahead") > 0
        inside = self.knows(values, family) & (family == family[0]) & (ahead == ahead[0])
        if not inside[0] or FAMILIES[family[0]] == "winograd":
            return 0
        prices = self.corrections(values, family) + np.log(terms.seconds)
        gains = prices[0] - prices
        best = int(np.argmax(np.where(inside, gains, -np.inf)))
        return best if gains[best] > LEAST_GAIN else 0

    def corrections(self, values: np.ndarray, family: np.ndarray) -> np.ndarray:
        """Logarithms of learned over analytic seconds, 0 where nothing was learned."""
        groups, found = GROUP_OF[family], np.zeros(len(values))
        for group, (forest, perceptrons) in enumerate(zip(self.forests, self.perceptrons)):
            own = np.flatnonzero(groups == group)
            if forest and perceptrons and len(own):
                both = (one.predict(values[own]).mean(axis=0) for one in (forest, perceptrons))
                found[own] = sum(both) / 2
        return found

    def knows(self, values: np.ndarray, family: np.ndarray) -> np.ndarray:
        """Which candidates lie in the ranges of a machine, each feature by itself."""
        inside = np.zeros(len(values), bool)
        for low, high in zip(self.low, self.high):
            room = BEYOND * (high - low)
            inside |= ((values >= low - room) & (values <= high + room)).all(axis=1)
        return inside & ~np.isnan(self.offsets[family])
