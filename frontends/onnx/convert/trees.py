"""Decision trees of ai.onnx.ml: one kernel, walks from the roots of several trees at once."""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from typing import Any

import numpy as np
from onnx import numpy_helper
from tvm import relax, te, tirx
from tvm.ir import Expr, Var
from tvm.script.ir_builder import IRBuilder
from tvm.script.ir_builder import tirx as T

from ..builder import Call, Converter, DeclinedError, Result
from ..forest import Forest, read
from .sizes import expr, int64, kernel

AGGREGATES = ("AVERAGE", "SUM", "MIN", "MAX")
"""In the order of the numbers that newer models have for them."""
COMPARE: tuple[Callable[[Expr, Expr], Expr], ...] = (
    lambda x, v: x <= v,
    lambda x, v: x < v,
    lambda x, v: x >= v,
    lambda x, v: x > v,
    lambda x, v: tirx.EQ(x, v),
    lambda x, v: tirx.NE(x, v),
)
"""By mode."""
LANES = 8
"""Walks at once: as many loads as hide the time that one takes."""
ROWS = 32
"""Of a block, which is one thread's."""


def _ensemble(call: Call) -> Result:
    """y[i, t] = the sum over all trees of what the leaf that row i leads to has for target t."""
    try:
        forest = read(call.attributes)
    except (KeyError, ValueError) as error:
        raise DeclinedError(str(error)) from error
    if call.rank(0) != 2:
        raise DeclinedError("its input has not two dims")
    (features,) = call.fixed(call.shape(0)[1:], "its input")
    if features < forest.features:
        raise DeclinedError(f"trees of {forest.features} features, an input of {features}")
    if not len(forest.feature) or not forest.targets:
        raise DeclinedError("no trees, or no targets")
    dtype = "float64" if call.dtype(0) == "float64" else "float32"
    x = call.tensor(0)
    if call.dtype(0) != dtype:
        x = call.emit(relax.op.astype(x, dtype))
    y = call.emit(_walk(call, forest, _aggregate(call), dtype, x))
    return _finished(call, y)


def _aggregate(call: Call) -> str:
    given = call.attr("aggregate_function", "SUM")
    return AGGREGATES[given] if isinstance(given, int) else given


def _finished(call: Call, y: relax.Expr) -> relax.Expr:
    """With the base values, in the type and through the function that the node wants."""
    base = call.attr("base_values") or call.attr("base_values_as_tensor")
    if base is not None:
        array = (
            np.array(base, np.float32) if isinstance(base, list) else numpy_helper.to_array(base)
        )
        y = call.emit(relax.op.add(y, relax.const(array.astype(str(y.ty.dtype)), str(y.ty.dtype))))
    if str(y.ty.dtype) != call.out_dtype():
        y = call.emit(relax.op.astype(y, call.out_dtype()))
    match call.attr("post_transform", "NONE"):
        case "NONE" | 0:
            return y
        case "SOFTMAX" | 1:
            return relax.op.nn.softmax(y, -1)
        case "LOGISTIC" | 2:
            return relax.op.sigmoid(y)
    raise DeclinedError(f"post_transform {call.attr('post_transform')}")


def _walk(call: Call, forest: Forest, aggregate: str, dtype: str, x: relax.Expr) -> relax.Expr:
    walk = _Walk(forest, aggregate)
    arrays = _arrays(forest, dtype)
    operands = [call.builder.bb.emit(call.constant(a, name)) for name, a in arrays.items()]

    def compute(x: te.Tensor, *trees: te.Tensor) -> te.Tensor:
        return te.extern(
            [(expr(x.shape[0]), int64(forest.targets))],
            [x, *trees],
            lambda read, written: walk.kernel(read[0], dict(zip(arrays, read[1:])), written[0]),
            dtype=dtype,
            name="trees",
        )

    return kernel(call, compute, [x, *operands], "trees")


def _arrays(forest: Forest, dtype: str) -> dict[str, np.ndarray]:
    """The trees as the kernel reads them: leaves behind all other nodes, each leading to itself.

    "next" has where a node leads to by "no" and by "yes". Where every leaf has a weight for each
    target, "weight" has them in order; else "first" and "target" say whose the weights are.
    """
    inner = forest.feature >= 0
    order = np.argsort(~inner, kind="stable")
    place = np.empty(len(order), np.int32)
    place[order] = np.arange(len(order))
    leads = np.stack([forest.no, forest.yes], 1)
    leads[~inner] = np.flatnonzero(~inner)[:, None]
    leaves = order[inner.sum() :]
    count = np.diff(forest.first)[leaves]
    first = np.append(0, np.cumsum(count)).astype(np.int32)
    pairs = np.repeat(forest.first[leaves] - first[:-1], count) + np.arange(first[-1])
    target = forest.target[pairs]
    arrays = {
        "roots": place[forest.roots],
        "feature": np.maximum(forest.feature[order], 0),
        "split": forest.split[order].astype(dtype),
        "next": place[leads[order]],
        "weight": forest.weight[pairs].astype(dtype),
    }
    every = np.tile(np.arange(forest.targets), len(leaves))
    if (count != forest.targets).any() or (target != every).any():
        arrays |= {"first": first, "target": target}
    if len(np.unique(forest.mode[inner])) > 1:
        arrays["mode"] = forest.mode[order]
    if forest.missing[inner].any():
        arrays["missing"] = forest.missing[order].astype(np.int32)
    return arrays


class _Walk:
    """`LANES` walks at a time: none waits for what another one reads, and no branch is guessed.

    Rows of a block go through one tree after another, which stays in the nearest cache meanwhile;
    each of those that are left goes through several trees at once. A walk that has found its leaf
    stays there until the others have found theirs.
    """

    def __init__(self, forest: Forest, aggregate: str) -> None:
        inner = forest.feature >= 0
        self.inner, self.leaves = int(inner.sum()), int((~inner).sum())
        self.modes: list[int] = np.unique(forest.mode[inner]).tolist()
        self.trees, self.targets = len(forest.roots), forest.targets
        self.aggregate = aggregate
        self.start = {"MIN": np.inf, "MAX": -np.inf}.get(aggregate, 0.0)

    def kernel(self, x: Var, arrays: dict[str, Var], y: Var) -> tirx.Stmt:
        rows = expr(x.shape[0])
        start, none = (tirx.const(value, str(y.dtype)) for value in (self.start, 0.0))
        with IRBuilder() as ib:
            with T.parallel(0, tirx.ceildiv(rows, ROWS)) as block:
                nodes = T.alloc_buffer((LANES,), "int32", scope="local")
                begin = T.bind(block * ROWS)
                end = T.bind(tirx.min(begin + ROWS, rows))
                self._every(y, begin, end, lambda _: start)
                groups = T.bind((end - begin) // LANES)
                with T.serial(0, int64(self.trees)) as tree, T.serial(0, groups) as group:
                    first = begin + group * LANES
                    self._walk(x, arrays, y, nodes, [(first + k, tree) for k in range(LANES)])
                with T.serial(0, end - begin - groups * LANES) as left:
                    self._row(x, arrays, y, nodes, begin + groups * LANES + left)
                if self.aggregate == "AVERAGE":
                    count = tirx.const(self.trees, str(y.dtype))
                    self._every(y, begin, end, lambda total: total / count)
                if self.aggregate in ("MIN", "MAX"):  # a target without a leaf has nothing
                    self._every(y, begin, end, lambda one: tirx.Select(one.equal(start), none, one))
            return ib.get()

    def _every(self, y: Var, begin: Expr, end: Expr, value: Callable[[Expr], Expr]) -> None:
        with T.serial(0, end - begin) as row, T.serial(0, int64(self.targets)) as t:
            T.buffer_store(y, value(y[begin + row, t]), [begin + row, t])

    def _row(self, x: Var, arrays: dict[str, Var], y: Var, nodes: Var, row: Expr) -> None:
        """One row through all trees."""
        lanes = min(LANES, self.trees)
        whole = self.trees // lanes * lanes
        with T.serial(0, int64(whole // lanes)) as part:
            some = [(row, part * lanes + k) for k in range(lanes)]
            self._walk(x, arrays, y, nodes, some)
        if whole < self.trees:
            rest = [(row, int64(tree)) for tree in range(whole, self.trees)]
            self._walk(x, arrays, y, nodes, rest)

    def _walk(
        self, x: Var, arrays: dict[str, Var], y: Var, nodes: Var, walks: list[tuple[Expr, Expr]]
    ) -> None:
        """Each a row and a tree."""
        places = [nodes[int64(lane)] for lane in range(len(walks))]
        for lane, (_, tree) in enumerate(walks):
            T.buffer_store(nodes, arrays["roots"][tree], [int64(lane)])
        if self.inner:
            with T.While(reduce(tirx.min, places) < self.inner):
                for lane, (row, _) in enumerate(walks):
                    following = self._next(x, arrays, row, places[lane])
                    T.buffer_store(nodes, following, [int64(lane)])
        for place, (row, _) in zip(places, walks):
            self._add(arrays, y, row, T.bind(_within(place - self.inner, self.leaves)))

    def _next(self, x: Var, arrays: dict[str, Var], row: Expr, at: Expr) -> Expr:
        """Where a node leads to; passes see that nothing is read outside."""
        node = T.bind(_within(at, self.inner + self.leaves))
        feature = T.bind(_within(arrays["feature"][node], x.shape[1]))
        value, split = T.bind(x[row, feature]), T.bind(arrays["split"][node])
        taken = COMPARE[self.modes[0]](value, split)
        for mode in self.modes[1:]:
            other = arrays["mode"][node].equal(mode)
            taken = tirx.Select(other, COMPARE[mode](value, split), taken)
        if "missing" in arrays:
            astray = tirx.And(tirx.isnan(value), arrays["missing"][node].equal(1))
            taken = tirx.Or(taken, astray)
        return arrays["next"][node, tirx.Select(taken, int64(1), int64(0))]

    def _add(self, arrays: dict[str, Var], y: Var, row: Expr, leaf: Expr) -> None:
        """What a leaf says about the targets."""
        combine = {"MIN": tirx.min, "MAX": tirx.max}.get(self.aggregate, lambda a, b: a + b)
        weight = arrays["weight"]
        if "first" not in arrays:
            with T.serial(0, int64(self.targets)) as t:
                at = leaf.astype("int64") * self.targets + t
                T.buffer_store(y, combine(y[row, t], weight[at]), [row, t])
            return
        begin = T.bind(arrays["first"][leaf])
        with T.serial(0, arrays["first"][leaf + 1] - begin) as k:
            target = T.bind(arrays["target"][begin + k])
            T.buffer_store(y, combine(y[row, target], weight[begin + k]), [row, target])


def _within(index: Expr, extent: Any) -> Expr:
    last = tirx.convert(extent).astype("int32") - 1
    return tirx.max(tirx.min(index, last), tirx.const(0, "int32"))


CONVERTERS: dict[str, Converter] = dict.fromkeys(
    ("TreeEnsemble", "TreeEnsembleRegressor"), _ensemble
)
