"""What trees and perceptrons are trained by: gradients of a loss over workloads.

The loss tells a pick from the candidates beside it rather than one workload from another. It is
nine parts a ranking of the n candidates of a workload, by the predicted logarithms p of seconds
and the measured ones y, over its pairs that are not CLOSE (RankNet, Burges 2005; TLP ranks
schedules by such a loss as well, arXiv 2211.03578),

    rank = 4 / n sum_ij max(w_i, w_j) cross entropy(sigmoid((y_i - y_j) / BLUR),
                                                    sigmoid((p_i - p_j) / SOFT))

whose truth is as uncertain as the measurements are, and one part a regression that keeps the price
one of seconds: with residuals r of a workload and their mean m,

    loss = sum_i w_i ((r_i - m)^2 + SHARED m^2) / 2          w_i = best seconds / seconds_i

so that what shifts all candidates alike counts little, and slow candidates, which nobody will take,
count less (as in Ansor, arXiv 2006.06762, section 5.2).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import xgboost as xgb

from .data import Data

SHARED = 0.05
"""What the common shift of a workload counts: it matters between kernels, not candidates."""

RANKING = 0.9
"""The part of the ranking in the loss."""

BLUR, SOFT = 0.02, 0.1
"""Logarithms of times by which pairs are told apart: measured ones, and predicted ones."""

CLOSE = 0.01
"""The logarithm of times within which pairs are left out: measured again, a quarter of those half
as far apart is in the other order, and what they take of trees others lack."""

LEAST_CURVE = 0.02
"""Of a pair that is in order already, so that no step is too long."""


@dataclass(frozen=True, eq=False)
class Loss:
    """The loss above. Rows are candidates, `groups` says of which workload.

    A pair is of the candidates `one` and `other`, with the probability `truth` that the first takes
    longer, and the weight `pairs`.
    """

    groups: np.ndarray
    weight: np.ndarray
    analytic: np.ndarray
    one: np.ndarray
    other: np.ndarray
    truth: np.ndarray
    pairs: np.ndarray

    @staticmethod
    def of(data: Data) -> Loss:
        groups = np.unique(data.group, return_inverse=True)[1]
        best = np.full(groups.max() + 1, np.inf)
        np.minimum.at(best, groups, data.seconds)
        weight = best[groups] / data.seconds
        own = [rows[np.stack(np.triu_indices(len(rows), 1))] for rows in data.workloads()]
        one, other = np.concatenate(own, axis=1)
        measured = np.log(data.seconds)
        told = np.abs(measured[one] - measured[other]) > CLOSE
        one, other = one[told], other[told]
        truth = _sigmoid((measured[one] - measured[other]) / BLUR)
        heavier = np.maximum(weight[one], weight[other])
        pairs = 4 * heavier / np.bincount(groups)[groups[one]]
        return Loss(groups, weight, np.log(data.terms.seconds), one, other, truth, pairs)

    def part(self, rows: np.ndarray) -> Loss:
        """Of all candidates of some workloads, in that order."""
        place = np.full(len(self.groups), -1)
        place[rows] = np.arange(len(rows))
        kept = np.flatnonzero(place[self.one] >= 0)
        return replace(
            self,
            groups=np.unique(self.groups[rows], return_inverse=True)[1],
            weight=self.weight[rows],
            analytic=self.analytic[rows],
            one=place[self.one[kept]],
            other=place[self.other[kept]],
            truth=self.truth[kept],
            pairs=self.pairs[kept],
        )

    def __call__(self, found: np.ndarray, matrix: xgb.DMatrix) -> tuple[np.ndarray, np.ndarray]:
        """As XGBoost asks."""
        return self.gradients(found, matrix.get_label())

    def gradients(self, found: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """First derivatives for each prediction, and what bounds the second ones."""
        residual = found - target
        total = np.bincount(self.groups, self.weight)
        mean = np.bincount(self.groups, self.weight * residual) / total
        shift = mean[self.groups]
        gradient, curve = self._ranking(found + self.analytic)
        slope = (1 - RANKING) * self.weight * (residual - shift + SHARED * shift)
        return slope + RANKING * gradient, (1 - RANKING) * self.weight + RANKING * curve

    def _ranking(self, price: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Gradients of the pairs, and what bounds their curve, in units of SOFT squared."""
        said = _sigmoid((price[self.one] - price[self.other]) / SOFT)
        slope = self.pairs * (said - self.truth) * SOFT
        curve = self.pairs * np.maximum(said * (1 - said), LEAST_CURVE)
        count = len(price)
        up, down = (np.bincount(at, slope, count) for at in (self.one, self.other))
        one, other = (np.bincount(at, curve, count) for at in (self.one, self.other))
        return up - down, one + other


def _sigmoid(values: np.ndarray) -> np.ndarray:
    found: np.ndarray = 1 / (1 + np.exp(-np.clip(values, -30, 30)))
    return found
