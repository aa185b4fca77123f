"""Decision trees as flat arrays, from any of the forms that ai.onnx.ml has for them.

    at node n with feature[n] >= 0:  go to yes[n] if x[feature[n]] <mode[n]> split[n], else to no[n]
    at a leaf, feature[n] = -1:      for p in first[n] .. first[n + 1] - 1:
                                         y[target[p]] += weight[p]

What is read is checked here, so that whoever walks the arrays stays inside of them and arrives.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from onnx import TensorProto, numpy_helper

MODES = ("BRANCH_LEQ", "BRANCH_LT", "BRANCH_GTE", "BRANCH_GT", "BRANCH_EQ", "BRANCH_NEQ")
"""In the order of the numbers that newer models have for them; the next one is MEMBER."""
MEMBER = len(MODES)


@dataclass(frozen=True, eq=False)
class Forest:
    roots: np.ndarray
    feature: np.ndarray
    mode: np.ndarray
    """Places in MODES."""
    split: np.ndarray
    yes: np.ndarray
    no: np.ndarray
    missing: np.ndarray
    """Where a value that is not a number goes to `yes`."""
    first: np.ndarray
    target: np.ndarray
    weight: np.ndarray
    targets: int

    def __post_init__(self) -> None:
        """Raises ValueError for an index outside of its array, and for cycles."""
        nodes, pairs = len(self.feature), len(self.target)
        lengths = {len(a) for a in (self.mode, self.split, self.yes, self.no, self.missing)}
        if lengths != {nodes} or len(self.first) != nodes + 1 or len(self.weight) != pairs:
            raise ValueError("arrays of trees have different lengths")
        for name, found, limit in (
            ("roots", self.roots, nodes),
            ("nodes", self.yes, nodes),
            ("nodes", self.no, nodes),
            ("targets", self.target, self.targets),
        ):
            if len(found) and not 0 <= found.min() <= found.max() < limit:
                raise ValueError(f"its {name} are not all between 0 and {limit - 1}")
        level, seen = np.unique(self.roots), 0
        while len(level):
            seen += len(level)
            if seen > 16 * nodes + 1:
                raise ValueError("its trees have a cycle, or share too many nodes")
            inner = level[self.feature[level] >= 0]
            level = np.unique(np.concatenate([self.yes[inner], self.no[inner]]))

    @property
    def features(self) -> int:
        """How many features it reads, at least."""
        return int(self.feature.max(initial=-1)) + 1


def read(attributes: Mapping[str, Any]) -> Forest:
    """The trees of a TreeEnsemble or TreeEnsembleRegressor.

    Raises ValueError for what is malformed, KeyError for what is missing.
    """
    return _flat(attributes) if "tree_roots" in attributes else _listed(attributes)


def _listed(attributes: Mapping[str, Any]) -> Forest:
    """Trees and nodes by their numbers; a leaf has any number of weights."""
    names = list(zip(attributes["nodes_treeids"], attributes["nodes_nodeids"], strict=True))
    places = {name: place for place, name in enumerate(names)}
    if len(places) < len(names):
        raise ValueError("two nodes of a tree have the same number")
    modes = attributes["nodes_modes"]
    numbers = {name: number for number, name in enumerate(MODES)} | {"LEAF": -1}
    mode = np.array([numbers[name] for name in modes], np.int32)
    leaf = mode < 0

    def children(key: str) -> np.ndarray:
        found = zip(names, attributes[key], leaf, strict=True)
        return _ints([places[tree, n] if not end else 0 for (tree, _), n, end in found])

    trees = [tree for tree, _ in names]
    roots = {tree: place for place, tree in reversed(list(enumerate(trees)))}
    pairs = zip(attributes["target_treeids"], attributes["target_nodeids"], strict=True)
    at = _ints([places[pair] for pair in pairs])
    order = np.argsort(at, kind="stable")
    first = np.searchsorted(at[order], np.arange(len(names) + 1))
    return Forest(
        _ints([roots[tree] for tree in sorted(roots)]),
        np.where(leaf, -1, _features(attributes["nodes_featureids"])),
        np.maximum(mode, 0),
        _numbers(attributes, "nodes_values"),
        children("nodes_truenodeids"),
        children("nodes_falsenodeids"),
        _flags(attributes, len(names)),
        _ints(first),
        _ints(attributes["target_ids"])[order],
        _numbers(attributes, "target_weights")[order],
        int(attributes["n_targets"]),
    )


def _flat(attributes: Mapping[str, Any]) -> Forest:
    """Nodes by their places, leaves behind them; a leaf has one weight."""
    mode = _tensor(attributes["nodes_modes"]).astype(np.int32)
    count, split = len(mode), _tensor(attributes["nodes_splits"])
    if len(mode) and not 0 <= mode.min() <= mode.max() <= MEMBER:
        raise ValueError("an unknown mode of a node")
    target, weight = _ints(attributes["leaf_targetids"]), _tensor(attributes["leaf_weights"])
    leaves = len(target)

    def children(kind: str) -> np.ndarray:
        ids, leaf = (_ints(attributes[f"nodes_{kind}{what}"]) for what in ("nodeids", "leafs"))
        limit = np.where(leaf != 0, leaves, count)
        if len(ids) != len(leaf) or (ids < 0).any() or (ids >= limit).any():
            raise ValueError("a node leads to one that does not exist")
        return np.where(leaf != 0, count + ids, ids)

    yes, no, feature = children("true"), children("false"), attributes["nodes_featureids"]
    columns = [_features(feature), mode, split, yes, no, _flags(attributes, count)]
    if len({len(column) for column in columns}) > 1:
        raise ValueError("arrays of trees have different lengths")
    roots = _ints(attributes["tree_roots"])
    if len(roots) and roots.max() >= count:
        raise ValueError("a root that does not exist")
    for column, filler in zip(range(len(columns)), (-1, 0, 0, 0, 0, 0)):
        columns[column] = np.append(columns[column], np.full(leaves, filler, columns[column].dtype))
    first = np.append(np.zeros(count, np.int32), np.arange(leaves + 1))
    columns, first = _without_members(columns, first, _sets(attributes))
    (feature, mode, split, yes, no, missing), targets = columns, int(attributes["n_targets"])
    return Forest(roots, feature, mode, split, yes, no, missing, first, target, weight, targets)


def _sets(attributes: Mapping[str, Any]) -> list[np.ndarray]:
    """The values that each MEMBER node accepts; a NaN ends a set."""
    if "membership_values" not in attributes:
        return []
    values = _tensor(attributes["membership_values"])
    parts = np.split(values, np.flatnonzero(np.isnan(values)) + 1)
    return [part[~np.isnan(part)] for part in parts if len(part)]


def _without_members(
    columns: Sequence[np.ndarray], first: np.ndarray, sets: Sequence[np.ndarray]
) -> tuple[list[np.ndarray], np.ndarray]:
    """A node that asks for a member of a set as a chain that asks for one member after another."""
    feature, mode, split, yes, no, missing = columns
    asking = np.flatnonzero((mode == MEMBER) & (feature >= 0))
    if len(asking) != len(sets):
        raise ValueError("not one set for each node that asks for a member")
    mode = np.where(mode == MEMBER, MODES.index("BRANCH_EQ"), mode)
    more: list[list[Any]] = [[] for _ in range(6)]
    for node, values in zip(asking, sets):
        if not len(values):
            yes[node] = no[node]
            continue
        split[node], last = values[0], no[node]
        if len(values) > 1:
            no[node] = len(feature) + len(more[0])
        for k, value in enumerate(values[1:], 2):
            end = last if k == len(values) else len(feature) + len(more[0]) + 1
            row = (feature[node], mode[node], value, yes[node], end, missing[node])
            for column, entry in zip(more, row):
                column.append(entry)
    grown = [
        np.append(old, np.array(new, old.dtype))
        for old, new in zip((feature, mode, split, yes, no, missing), more)
    ]
    return grown, _ints(np.append(first, np.full(len(more[0]), first[-1])))


def _flags(attributes: Mapping[str, Any], count: int) -> np.ndarray:
    given = attributes.get("nodes_missing_value_tracks_true")
    return np.array(given, np.int32) != 0 if given else np.zeros(count, bool)


def _numbers(attributes: Mapping[str, Any], name: str) -> np.ndarray:
    tensor = attributes.get(f"{name}_as_tensor")
    return np.array(attributes[name], np.float32) if tensor is None else _tensor(tensor)


def _tensor(tensor: TensorProto) -> np.ndarray:
    return np.array(numpy_helper.to_array(tensor)).reshape(-1)


def _features(values: Sequence[int]) -> np.ndarray:
    found = _ints(values)
    if len(found) and found.min() < 0:
        raise ValueError("a feature with a negative number")
    return found


def _ints(values: Any) -> np.ndarray:
    found = np.array(values, np.int64).reshape(-1)
    if len(found) and not 0 <= found.min() <= found.max() < 1 << 31:
        raise ValueError("a number that is no place in an array")
    return found.astype(np.int32)
