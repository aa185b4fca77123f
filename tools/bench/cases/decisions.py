"""What decides by data: forests of decision trees, and the boxes of a detector."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from .case import Case, Graph, node, random

TREES = ((1, 100, 6), (33, 100, 6), (1000, 100, 6), (1000, 100, 12), (1000, 20, 4))
"""Rows, trees and their depth. A few rows again and again flatter those that guess branches."""
FEATURES = 30
BOXES = ((1, 8400, 8400), (1, 8400, 200), (1, 1000, 1000), (80, 1000, 100))
"""Classes, boxes, and how many are wanted of a class."""


def cases() -> list[Case]:
    """Names are trees/ROWSxTREESxDEPTH and nms/CLASSESxBOXESxWANTED."""
    trees = [Case("trees/" + "x".join(map(str, s)), partial(_trees, *s)) for s in TREES]
    return trees + [Case("nms/" + "x".join(map(str, s)), partial(_boxes, *s)) for s in BOXES]


def _trees(rows: int, trees: int, depth: int) -> Graph:
    """Deep ones are ragged: beyond the third level a quarter of the nodes are leaves."""
    rng = np.random.default_rng(0)
    nodes: dict[str, list[Any]] = {
        f"nodes_{what}": []
        for what in (
            "treeids", "nodeids", "featureids", "values", "modes", "truenodeids", "falsenodeids"
        )
    }  # fmt: skip
    leaves: dict[str, list[Any]] = {f"target_{n}": [] for n in ("treeids", "nodeids", "weights")}

    def grow(tree: int, level: int, number: int) -> int:
        """The node `number` and all below it; the next number."""
        place = len(nodes["nodes_modes"])
        is_leaf = level == depth or (depth > 8 and level > 2 and rng.random() < 0.25)
        split = float(rng.standard_normal())
        row = (tree, number, int(rng.integers(FEATURES)), split, "BRANCH_LEQ", number + 1, 0)
        for column, value in zip(nodes.values(), row):
            column.append(value)
        if is_leaf:
            nodes["nodes_modes"][place] = "LEAF"
            for column, value in zip(leaves.values(), (tree, number, split)):
                column.append(value)
            return number + 1
        nodes["nodes_falsenodeids"][place] = between = grow(tree, level + 1, number + 1)
        return grow(tree, level + 1, between)

    for tree in range(trees):
        grow(tree, 0, 0)
    leaves["target_ids"] = [0] * len(leaves["target_weights"])
    one = node(
        "TreeEnsembleRegressor", "x", "y", "ai.onnx.ml", n_targets=1, **nodes, **leaves
    )  # fmt: skip
    return Graph([one], {"x": random(rows, FEATURES)}, "y", {}, domains=(("ai.onnx.ml", 3),))


def _boxes(classes: int, boxes: int, wanted: int) -> Graph:
    """Of 4 to 84 pixels in a picture of 600; one of two that share more than half stays."""
    rng = np.random.default_rng(0)
    corner = rng.random((1, boxes, 2), np.float32) * 600
    end = corner + rng.random((1, boxes, 2), np.float32) * 80 + 4
    scores = rng.random((1, classes, boxes), np.float32)
    return Graph(
        [node("NonMaxSuppression", "boxes scores wanted overlap least", "y")],
        {"boxes": np.concatenate([corner, end], -1), "scores": scores},
        "y",
        {
            "wanted": np.array([wanted], np.int64),
            "overlap": np.array([0.5], np.float32),
            "least": np.array([0.25], np.float32),
        },
        dtype="int64",
    )
