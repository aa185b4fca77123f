"""Each operator's rule against TVM's own code for it: all elements, static and symbolic."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from tvm import relax, tirx
from tvm.relax import op

from tests.passes.modules import build, run
from tvmext.passes.constants import constant_values
from tvmext.passes.virtual.analysis import analyze
from tvmext.passes.virtual.evaluate import materialize

N = tirx.Var("n", "int64")

Body = Callable[..., Any]
ON_X: dict[str, Body] = {
    "reshape": lambda bb, x, n: op.reshape(x, (n * 2, 2, 6)),
    "flatten": lambda bb, x, n: op.flatten(x),
    "expand_dims": lambda bb, x, n: op.expand_dims(x, [0, 2]),
    "squeeze": lambda bb, x, n: op.squeeze(bb.emit(op.expand_dims(x, [1])), [1]),
    "permute_dims": lambda bb, x, n: op.permute_dims(x, [2, 0, 1]),
    "permute_dims reversed": lambda bb, x, n: op.permute_dims(x),
    "broadcast_to": lambda bb, x, n: op.broadcast_to(
        bb.emit(op.expand_dims(x, [1])), (2, n, 3, 4, 6)
    ),
    "concat": lambda bb, x, n: op.concat([x, x, bb.emit(op.flip(x, 1))], 1),
    "stack": lambda bb, x, n: op.stack([x, bb.emit(op.flip(x, 2))], 2),
    "split": lambda bb, x, n: relax.TupleGetItem(bb.emit(op.split(x, 3, 2)), 1),
    "split at": lambda bb, x, n: relax.TupleGetItem(bb.emit(op.split(x, [1, 4], 2)), 1),
    "strided_slice": lambda bb, x, n: op.strided_slice(x, [1, 2], [1, 0], [4, 6], [1, 2]),
    "strided_slice from the end": lambda bb, x, n: op.strided_slice(x, [2], [-3], [-1]),
    "strided_slice backwards": lambda bb, x, n: op.strided_slice(x, [2], [10], [-7], [-2]),
    "strided_slice of n": lambda bb, x, n: op.strided_slice(x, [0], [1], [n], assume_inbound=True),
    "pad": lambda bb, x, n: op.nn.pad(x, [1, 0, 0, 2, 0, 0], pad_value=5.0),
    "pad reflect": lambda bb, x, n: op.nn.pad(x, [0, 0, 1, 2, 3, 0], "reflect"),
    "pad replicate": lambda bb, x, n: op.nn.pad(x, [1, 1, 0, 0, 3, 0], "replicate"),
    "pad circular": lambda bb, x, n: op.nn.pad(x, [0, 0, 1, 2, 3, 0], "circular"),
    "tile": lambda bb, x, n: op.tile(x, (2, 1, 3, 2)),
    "tile of the last axes": lambda bb, x, n: op.tile(x, (2, 1)),
    "repeat": lambda bb, x, n: op.repeat(x, 3, 1),
    "repeat of flat": lambda bb, x, n: op.repeat(x, 2),
    "flip": lambda bb, x, n: op.flip(x, 0),
    "triu": lambda bb, x, n: op.triu(x, 1),
    "tril": lambda bb, x, n: op.tril(x, -1),
    "take constants": lambda bb, x, n: op.take(x, relax.const([3, 1, 0, 0], "int64"), 1),
    "take clipped": lambda bb, x, n: op.take(
        x, relax.const([-3, 9, 1, 5, 0, 2], "int64"), 2, "clip"
    ),
    "take wrapped": lambda bb, x, n: op.take(
        x, relax.const([[-3, 9], [1, 5], [0, 2]], "int64"), 2, "wrap"
    ),
    "gather_nd": lambda bb, x, n: op.gather_nd(x, relax.const([[0, 1], [0, 3]], "int64")),
    "full": lambda bb, x, n: op.concat(
        [x, bb.emit(op.full((n, 2, 6), relax.const(3.0, "float32"), "float32"))], 1
    ),
}


def check(mod: Any, arrays: list[np.ndarray], sizes: dict[str, int], expected: Any = None) -> Any:
    """What the analysis says main returns is what TVM computes (or has computed before)."""
    func = mod["main"]
    found = analyze(func, mod)
    assert not found.declined, found.declined
    (result,) = found.outputs
    names = {str(param.name): array for param, array in zip(func.params, arrays)}
    homes = {name: _array(expr, names) for name, expr in found.homes.items()}
    if expected is None:
        (expected,) = run(mod, *arrays)
    for tensor in (found.moved[result].deep, found.moved[result].near):
        actual = materialize(tensor, homes, sizes, expected.dtype)
        np.testing.assert_array_equal(actual, expected)
    return expected


def _array(expr: relax.Expr, names: dict[str, np.ndarray]) -> np.ndarray:
    if isinstance(expr, relax.Var):
        return names[expr.name]
    (value,) = constant_values([expr], {}.get) or [None]
    return value


@pytest.mark.parametrize("name", ON_X)
def test_rule(name: str) -> None:
    x = np.arange(72, dtype="float32").reshape(3, 4, 6)
    symbolic, static = (
        build([("x", (n, 4, 6), "float32")], lambda bb, x, n=n: ON_X[name](bb, x, n))
        for n in (N, 3)
    )
    check(static, [x], {}, check(symbolic, [x], {"n": 3}))


def test_depth_operators() -> None:
    mod = build([("x", (N, 8, 2, 3), "float32")], lambda bb, x: op.nn.pixel_shuffle(x, 2))
    x = np.arange(96, dtype="float32").reshape(2, 8, 2, 3)
    expected = x.reshape(2, 2, 2, 2, 2, 3).transpose(0, 1, 4, 2, 5, 3).reshape(2, 2, 4, 6)
    check(mod, [x], {"n": 2}, expected)  # TVM has no code for it


def test_layout() -> None:
    mod = build(
        [("x", (3, 32), "float32")],
        lambda bb, x: op.layout_transform(x, lambda i, j: (j // 16, i, j % 16)),
    )
    check(mod, [np.arange(96, dtype="float32").reshape(3, 32)], {})


GATHERS: dict[str, Body] = {
    "take": lambda bb, x, i: op.take(x, i, 0),
    "take by a view": lambda bb, x, i: op.take(x, bb.emit(op.permute_dims(i, [1, 0])), 1, "clip"),
    "take wrapped": lambda bb, x, i: op.take(x, i, 1, "wrap"),
    "gather_elements": lambda bb, x, i: op.gather_elements(x, i, 0),
    "gather_nd": lambda bb, x, i: op.gather_nd(x, i),
    "gather_nd by columns": lambda bb, x, i: op.gather_nd(
        x, bb.emit(op.stack([_column(bb, i, 1), _column(bb, i, 0)], 1))
    ),
}


def _column(bb: relax.BlockBuilder, i: relax.Var, k: int) -> relax.Var:
    return bb.emit(op.squeeze(bb.emit(op.strided_slice(i, [1], [k], [k + 1])), [1]))


@pytest.mark.parametrize("name", GATHERS)
def test_gathers_by_data(name: str) -> None:
    mod = build([("x", (N, 4), "float32"), ("i", (2, 2), "int64")], GATHERS[name])
    rows = np.array([[2, 0], [1, 2]], "int64")
    check(mod, [np.arange(12, dtype="float32").reshape(3, 4), rows], {"n": 3})


def test_indices_in_pieces_are_stored_first() -> None:
    """A concat of indices is no view, so it stays in memory and the gather reads it there."""

    def body(bb: relax.BlockBuilder, x: relax.Var, i: relax.Var) -> relax.Expr:
        return op.take(x, bb.emit(op.concat([i, i], 0)), 0)

    mod = build([("x", (N, 4), "float32"), ("i", (2,), "int64")], body)
    found = analyze(mod["main"], mod)
    assert not found.declined
    assert sorted(str(var.name) for var in found.materialized) == ["gv", "lv"]
