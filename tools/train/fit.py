"""Boosted trees and multilayer perceptrons that correct the analytic price.

    target_i = log(seconds_i / analytic_i)

is learned by the loss of loss.py. Families that compete have an ensemble of their own (`GROUPS` of
tvmext/schedules/cost/model.py): of common trees those of many workloads took most of the leaves.
Its members differ by the rows and features that trees are drawn from, and by where perceptrons
(perceptron.py) begin and in which order they see workloads. Trees tell what single sizes decide,
perceptrons what ratios do; where one sort errs the other often does not.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import xgboost as xgb

from tvmext.schedules.cost.features import NAMES
from tvmext.schedules.cost.forest import Forest
from tvmext.schedules.cost.model import GROUP_OF, GROUPS, Learned
from tvmext.schedules.cost.perceptron import Perceptrons
from tvmext.schedules.cost.terms import FAMILIES

from . import perceptron
from .data import Data, by_machine
from .loss import Loss
from .settings import Settings

MONOTONE = {"conflicts": 1, "memory_share": 1}
"""What can only cost beside the analytic price, which leaves it out: rows that compete for a set of
L1, and bytes from DRAM for an operation."""

NEVER = float(np.finfo(np.float32).max)
"""A threshold that no value reaches."""


def fit(data: Data, settings: Settings | None = None) -> Learned:
    """The model of a data set; the same one again for the same data and settings."""
    settings = settings or Settings()
    groups = GROUP_OF[data.family]
    forests: list[Forest | None] = [None] * len(GROUPS)
    perceptrons: list[Perceptrons | None] = [None] * len(GROUPS)
    for group in np.unique(groups):
        own_rows = data.where(np.flatnonzero(groups == group))
        forests[group] = _fit(own_rows, settings)
        perceptrons[group] = perceptron.fit(own_rows, settings)
    offsets = np.full(len(FAMILIES), np.nan)
    own = data.terms.column("family").astype(int)
    for family in np.unique(own):
        offsets[family] = np.median(data.target[own == family])
    machines = [data.features[rows] for _, rows in by_machine(data)]
    low, high = (np.stack([f(own, axis=0) for own in machines]) for f in (np.min, np.max))
    return Learned(tuple(forests), tuple(perceptrons), low, high, offsets)


def _fit(data: Data, settings: Settings) -> Forest:
    """The trees of families that compete."""
    base = float(np.median(data.target))
    trees: list[list[dict[str, Any]]] = []
    for member in range(settings.members):
        dump = booster(data, settings, base, member).get_dump(dump_format="json")
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
        "colsample_bytree": 0.5,
        "monotone_constraints": constraints,
        "base_score": 0.0,
        "seed": 1000 * settings.seed + member,
        "nthread": 1,
        "disable_default_eval_metric": True,
    }
    return xgb.train(options, matrix, settings.trees, obj=Loss.of(data))


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
