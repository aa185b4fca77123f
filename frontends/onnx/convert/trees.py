"""Decision trees of ai.onnx.ml: one kernel, a walk from the root for every row and tree."""

from __future__ import annotations

from collections.abc import Callable, Sequence
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
    arrays = {
        "roots": forest.roots,
        "feature": forest.feature,
        "split": forest.split.astype(dtype),
        "yes": forest.yes,
        "no": forest.no,
        "first": forest.first,
        "target": forest.target,
        "weight": forest.weight.astype(dtype),
    }
    inner = forest.feature >= 0
    if len(np.unique(forest.mode[inner])) > 1:
        arrays["mode"] = forest.mode
    if forest.missing[inner].any():
        arrays["missing"] = forest.missing.astype(np.int32)
    modes = np.unique(forest.mode[inner]).tolist()
    operands = [call.builder.bb.emit(call.constant(a, name)) for name, a in arrays.items()]

    def compute(x: te.Tensor, *trees: te.Tensor) -> te.Tensor:
        return te.extern(
            [(expr(x.shape[0]), int64(forest.targets))],
            [x, *trees],
            lambda read, written: _kernel(
                read[0], dict(zip(arrays, read[1:])), written[0], modes, aggregate
            ),
            dtype=dtype,
            name="trees",
        )

    return kernel(call, compute, [x, *operands], "trees")


def _kernel(
    x: Var, trees: dict[str, Var], y: Var, modes: Sequence[int], aggregate: str
) -> tirx.Stmt:
    dtype = str(y.dtype)
    number, targets = (expr(size) for size in (trees["roots"].shape[0], y.shape[1]))
    combine = {"MIN": tirx.min, "MAX": tirx.max}.get(aggregate, lambda a, b: a + b)
    start = {"MIN": np.inf, "MAX": -np.inf}.get(aggregate, 0.0)

    def put(buffer: Var, value: Any, *at: Any) -> None:
        T.buffer_store(buffer, value, list(at))

    def every(row: Expr, value: Callable[[Expr], Expr]) -> None:
        with T.serial(0, targets) as t:
            put(y, value(y[row, t]), row, t)

    with IRBuilder() as ib:
        with T.parallel(0, expr(x.shape[0])) as row:
            node = T.alloc_buffer((1,), "int32", scope="local")
            every(row, lambda _: tirx.const(start, dtype))
            with T.serial(0, number) as tree:
                put(node, trees["roots"][tree], int64(0))
                with T.While(trees["feature"][node[int64(0)]] >= 0):
                    put(node, _next(x, trees, modes, row, node[int64(0)]), int64(0))
                leaf = T.bind(node[int64(0)])
                begin = T.bind(trees["first"][leaf])
                with T.serial(0, trees["first"][leaf + 1] - begin) as k:
                    target = T.bind(trees["target"][begin + k])
                    put(y, combine(y[row, target], trees["weight"][begin + k]), row, target)
            if aggregate == "AVERAGE":
                every(row, lambda sum_: sum_ / number.astype(dtype))
            if aggregate in ("MIN", "MAX"):  # a target without a leaf has nothing
                none = tirx.const(start, dtype)
                every(row, lambda one: tirx.Select(one.equal(none), tirx.const(0.0, dtype), one))
        return ib.get()


def _next(x: Var, trees: dict[str, Var], modes: Sequence[int], row: Expr, node: Expr) -> Expr:
    """The node after this one, which is not a leaf."""
    value, split = x[row, trees["feature"][node]], trees["split"][node]
    taken = COMPARE[modes[0]](value, split)
    for mode in modes[1:]:
        taken = tirx.Select(trees["mode"][node].equal(mode), COMPARE[mode](value, split), taken)
    if "missing" in trees:
        astray = tirx.And(tirx.isnan(value), trees["missing"][node].equal(1))
        taken = tirx.Or(taken, astray)
    return tirx.Select(taken, trees["yes"][node], trees["no"][node])


CONVERTERS: dict[str, Converter] = dict.fromkeys(
    ("TreeEnsemble", "TreeEnsembleRegressor"), _ensemble
)
