"""Boosted trees that correct the analytic price.

    target_i = log(seconds_i / analytic_i)

The loss tells a pick from the candidates beside it rather than one workload from another. It is
nine parts a ranking of the n candidates of a workload, by the predicted logarithms p of seconds
and the measured ones y, over its pairs (RankNet, Burges 2005; TLP ranks schedules by such a loss as
well, arXiv 2211.03578),

    rank = 4 / n sum_ij max(w_i, w_j) cross entropy(sigmoid((y_i - y_j) / BLUR),
                                                    sigmoid((p_i - p_j) / SOFT))

whose truth is as uncertain as the measurements are, and one part a regression that keeps the price
one of seconds: with residuals r of a workload and their mean m,

    loss = sum_i w_i ((r_i - m)^2 + SHARED m^2) / 2          w_i = best seconds / seconds_i

so that what shifts all candidates alike counts little, and slow candidates, which nobody will take,
count less (as in Ansor, arXiv 2006.06762, section 5.2). Families that compete have trees of their
own (`GROUPS` of tvmext/schedules/cost/model.py): in common ones those of many workloads took most
of the leaves. Members of an ensemble see different parts of the workloads.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import numpy as np
import xgboost as xgb

from tvmext.schedules.cost.features import NAMES
from tvmext.schedules.cost.forest import Forest
from tvmext.schedules.cost.model import GROUP_OF, GROUPS, Learned
from tvmext.schedules.cost.terms import FAMILIES

from .data import Data

SHARED = 0.05
"""What the common shift of a workload counts: it matters between kernels, not candidates."""

RANKING = 0.9
"""The part of the ranking in the loss."""

BLUR, SOFT = 0.02, 0.1
"""Logarithms of times by which pairs are told apart: measured ones, and predicted ones."""

LEAST_CURVE = 0.02
"""Of a pair that is in order already, so that no step is too long."""

MONOTONE = {"conflicts": 1, "memory_share": 1}
"""What can only cost beside the analytic price, which leaves it out: rows that compete for a set of
L1, and bytes from DRAM for an operation."""

NEVER = float(np.finfo(np.float32).max)
"""A threshold that no value reaches."""


@dataclass(frozen=True)
class Settings:
    """How to train; `share` is the part of the workloads that a member sees."""

    members: int = 3
    trees: int = 80
    depth: int = 7
    rate: float = 0.15
    share: float = 0.7
    seed: int = 0
    monotone: bool = True
    lightest: float = 1.0
    """The least weight of a leaf."""


def fit(data: Data, settings: Settings | None = None) -> Learned:
    """The model of a data set; the same one again for the same data and settings."""
    settings = settings or Settings()
    groups = GROUP_OF[data.family]
    forests = [
        _fit(data.where(np.flatnonzero(groups == group)), settings) if group in groups else None
        for group in range(len(GROUPS))
    ]
    offsets = np.full(len(FAMILIES), np.nan)
    own = data.terms.column("family").astype(int)
    for family in np.unique(own):
        offsets[family] = np.median(data.target[own == family])
    low, high = data.features.min(axis=0), data.features.max(axis=0)
    return Learned(tuple(forests), low, high, offsets)


def _fit(data: Data, settings: Settings) -> Forest:
    """The trees of families that compete."""
    rng = np.random.default_rng(settings.seed)
    workloads = np.unique(data.group)
    base = float(np.median(data.target))
    trees: list[list[dict[str, Any]]] = []
    for member in range(settings.members):
        count = max(1, round(settings.share * len(workloads)))
        seen = rng.choice(workloads, count, replace=False)
        rows = np.flatnonzero(np.isin(data.group, seen))
        dump = booster(data.where(rows), settings, base, member).get_dump(dump_format="json")
        trees.append([json.loads(text) for text in dump])
    return _forest(trees, settings.depth, base)


def booster(data: Data, settings: Settings, base: float, member: int) -> xgb.Booster:
    """One member."""
    matrix = xgb.DMatrix(data.features, data.target - base, feature_names=list(NAMES))
    constraints = tuple(MONOTONE.get(name, 0) if settings.monotone else 0 for name in NAMES)
    options = {
        "tree_method": "hist",
        "max_depth": settings.depth,
        "eta": settings.rate,
        "min_child_weight": settings.lightest,
        "lambda": 1.0,
        "subsample": 0.5,
        "colsample_bytree": 0.7,
        "monotone_constraints": constraints,
        "base_score": 0.0,
        "seed": 1000 * settings.seed + member,
        "nthread": 1,
        "disable_default_eval_metric": True,
    }
    return xgb.train(options, matrix, settings.trees, obj=Loss(data))


class Loss:
    """The loss above, as gradients for XGBoost."""

    def __init__(self, data: Data) -> None:
        groups = np.unique(data.group, return_inverse=True)[1]
        best = np.full(groups.max() + 1, np.inf)
        np.minimum.at(best, groups, data.seconds)
        self.groups = groups
        self.weight = best[groups] / data.seconds
        self.total = np.bincount(groups, self.weight)
        self.analytic = np.log(data.terms.seconds)
        own = [rows[np.stack(np.triu_indices(len(rows), 1))] for rows in data.workloads()]
        self.one, self.other = np.concatenate(own, axis=1)
        measured = np.log(data.seconds)
        self.truth = _sigmoid((measured[self.one] - measured[self.other]) / BLUR)
        heavier = np.maximum(self.weight[self.one], self.weight[self.other])
        self.pairs = 4 * heavier / np.bincount(groups)[groups[self.one]]

    def __call__(self, found: np.ndarray, matrix: xgb.DMatrix) -> tuple[np.ndarray, np.ndarray]:
        residual = found - matrix.get_label()
        mean = np.bincount(self.groups, self.weight * residual) / self.total
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


def _forest(members: list[list[dict[str, Any]]], depth: int, base: float) -> Forest:
    """Trees of all members as complete binary ones."""
    trees = [tree for member in members for tree in member]
    inner = (1 << depth) - 1
    feature = np.zeros((len(trees), inner), np.intp)
    threshold = np.full((len(trees), inner), NEVER, np.float32)
    leaf = np.zeros((len(trees), inner + 1), np.float32)
    place = {name: number for number, name in enumerate(NAMES)}

    def fill(number: int, node: dict[str, Any], at: int) -> None:
        if "leaf" in node:
            first, last = at, at
            while first < inner:
                first, last = 2 * first + 1, 2 * last + 2
            leaf[number, first - inner : last - inner + 1] = node["leaf"]
            return
        feature[number, at] = place[node["split"]]
        threshold[number, at] = node["split_condition"]
        children = {child["nodeid"]: child for child in node["children"]}
        fill(number, children[node["yes"]], 2 * at + 1)
        fill(number, children[node["no"]], 2 * at + 2)

    for number, tree in enumerate(trees):
        fill(number, tree, 0)
    return Forest(feature, threshold, leaf, len(members), base)
