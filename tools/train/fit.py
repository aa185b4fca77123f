"""Boosted trees that correct the analytic price.

    target_i = log(seconds_i / analytic_i)

The loss tells a pick from the candidates beside it rather than one workload from another: with
residuals r of a workload and their mean m,

    loss = sum_i w_i ((r_i - m)^2 + SHARED m^2) / 2          w_i = best seconds / seconds_i

so that what shifts all candidates alike counts little, and slow candidates, which nobody will take,
count less (as in Ansor, arXiv 2006.06762, section 5.2). Members of the ensemble see different
parts of the workloads; where they differ the model does not know.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import numpy as np
import xgboost as xgb

from tvmext.schedules.cost.features import NAMES
from tvmext.schedules.cost.forest import Forest
from tvmext.schedules.cost.model import Learned
from tvmext.schedules.cost.terms import FAMILIES

from .data import Data

SHARED = 0.05
"""What the common shift of a workload counts: it matters between kernels, not candidates."""

MONOTONE = {"conflicts": 1, "memory_share": 1}
"""What can only cost beside the analytic price, which leaves it out: rows that compete for a set of
L1, and bytes from DRAM for an operation."""

NEVER = float(np.finfo(np.float32).max)
"""A threshold that no value reaches."""


@dataclass(frozen=True)
class Settings:
    """How to train; `share` is the part of the workloads that a member sees."""

    members: int = 3
    trees: int = 64
    depth: int = 8
    rate: float = 0.15
    share: float = 0.7
    seed: int = 0
    monotone: bool = True
    lightest: float = 1.0
    """The least weight of a leaf."""


def fit(data: Data, settings: Settings | None = None) -> Learned:
    """The model of a data set; the same one again for the same data and settings."""
    settings = settings or Settings()
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
    forest = _forest(trees, settings.depth, base)
    offsets = np.full(len(FAMILIES), np.nan)
    own = data.terms.column("family").astype(int)
    for family in np.unique(own):
        offsets[family] = np.median(data.target[own == family])
    low, high = data.features.min(axis=0), data.features.max(axis=0)
    return Learned(forest, low, high, offsets)


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
        "subsample": 0.9,
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

    def __call__(self, found: np.ndarray, matrix: xgb.DMatrix) -> tuple[np.ndarray, np.ndarray]:
        residual = found - matrix.get_label()
        mean = np.bincount(self.groups, self.weight * residual) / self.total
        shift = mean[self.groups]
        return self.weight * (residual - shift + SHARED * shift), self.weight


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
