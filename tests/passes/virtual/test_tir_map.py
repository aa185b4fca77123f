"""The general rule: maps read off TIR agree with NumPy, with the operators' own rules, and decline
what computes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import tvm
from tvm import relax, te, tirx
from tvm.relax import op

from tests.passes.modules import build
from tvmext.frontends.dims import symbol
from tvmext.passes.indexing import positions, take
from tvmext.passes.virtual.evaluate import materialize
from tvmext.passes.virtual.prims import UnmappedError
from tvmext.passes.virtual.tensor import VirtualTensor, physical
from tvmext.passes.virtual.tir_map import map_of
from tvmext.passes.virtual.virtualize import VirtualTensors

N = tirx.Var("n", "int64")
X = np.arange(4 * 5 * 6, dtype="float32").reshape(4, 5, 6)
MATRIX = X[0]


def legalized(inputs: list, body: Callable[..., Any]) -> tirx.PrimFunc:
    """The one kernel that an operator becomes."""
    mod = relax.transform.LegalizeOps()(build(inputs, body))
    (func,) = [f for f in mod.functions.values() if isinstance(f, tirx.PrimFunc)]
    return func


CASES: dict[str, tuple[Callable[[Any], Any], Callable[[np.ndarray], np.ndarray]]] = {
    "permute": (lambda x: op.permute_dims(x, [2, 0, 1]), lambda x: x.transpose(2, 0, 1)),
    "reshape": (lambda x: op.reshape(x, (-1, 10)), lambda x: x.reshape(-1, 10)),
    "flip": (lambda x: op.flip(x, 1), lambda x: np.flip(x, 1)),
    "tile": (lambda x: op.tile(x, (1, 2, 1)), lambda x: np.tile(x, (1, 2, 1))),
    "repeat": (lambda x: op.repeat(x, 2, 1), lambda x: np.repeat(x, 2, 1)),
    "pad": (
        lambda x: op.nn.pad(x, [0, 0, 1, 2, 0, 0], pad_value=7.0),
        lambda x: np.pad(x, [(0, 0), (1, 2), (0, 0)], constant_values=7),
    ),
    "concat with itself": (
        lambda x: op.concat([x, x], 1),
        lambda x: np.concatenate([x, x], 1),
    ),
    "slice": (lambda x: op.strided_slice(x, [1], [1], [5], [2]), lambda x: x[:, 1:5:2]),
    "lower triangle": (lambda x: op.tril(x, 1), lambda x: np.tril(x, 1)),
    "upper triangle": (lambda x: op.triu(x, -1), lambda x: np.triu(x, -1)),
    "broadcast": (
        lambda x: op.broadcast_to(x, (2, x.ty.shape[0], 5, 6)),
        lambda x: np.broadcast_to(x, (2, *x.shape)),
    ),
}


@pytest.mark.parametrize("n", [4, N], ids=str)
@pytest.mark.parametrize("name", CASES)
def test_maps_of_operators(name: str, n: Any) -> None:
    operator, expected = CASES[name]
    func = legalized([("x", (n, 5, 6), "float32")], lambda bb, x: operator(x))
    size = symbol("n") if n is N else 4
    inputs = sum(map(tirx.is_buffer_var, func.params)) - 1  # concat takes x twice
    (tensor,) = map_of(func, [physical("x", (size, 5, 6))] * inputs)
    for length in (4,) if n == 4 else (4, 1, 7):
        x = np.resize(X, (length, 5, 6))
        actual = materialize(tensor, {"x": x}, {"n": length})
        np.testing.assert_array_equal(actual, expected(x))


def test_padding_becomes_boxes() -> None:
    func = legalized(
        [("x", (N, 5), "float32")], lambda bb, x: op.nn.pad(x, [0, 0, 1, 2], pad_value=1.0)
    )
    (tensor,) = map_of(func, [physical("x", (symbol("n"), 5))])
    assert [(piece.origin, piece.guards) for piece in tensor.pieces] == [((0, 1), ()), ((0, 0), ())]


def test_indices_that_are_read() -> None:
    func = legalized(
        [("x", (5, 6), "float32"), ("i", (3,), "int64")], lambda bb, x, i: op.take(x, i, 0)
    )
    (tensor,) = map_of(func, [physical("x", (5, 6)), physical("i", (3,))])
    rows = np.array([4, 0, 4])
    actual = materialize(tensor, {"x": MATRIX, "i": rows})
    np.testing.assert_array_equal(actual, MATRIX[rows])


@pytest.mark.parametrize("mode", ["fast", "clip", "wrap"])
@pytest.mark.parametrize("n", [5, N], ids=str)
def test_positions_that_are_data_are_read_back(mode: str, n: Any) -> None:
    """What passes/indexing.py makes of them, and an index of the shape's own beside it."""
    mod = build(
        [("x", (n, 6), "float32"), ("i", (3,), "int32")],
        lambda bb, x, i: op.take(x, i, 0, mode),
    )
    mod = relax.transform.LegalizeOps({"relax.take": take})(mod)
    (func,) = [f for f in mod.functions.values() if isinstance(f, tirx.PrimFunc)]
    size = symbol("n") if n is N else 5
    (tensor,) = map_of(func, [physical("x", (size, 6)), physical("i", (3,))])
    assert [lookup.mode for piece in tensor.pieces for lookup in piece.lookups] == [mode]
    rows = np.array([4, -2, 7], "int32")
    actual = materialize(tensor, {"x": MATRIX[:5], "i": rows}, {"n": 5})
    np.testing.assert_array_equal(actual, MATRIX[positions(rows, 5, mode)])


def test_updates_at_positions_that_are_data_are_read_back() -> None:
    """A loader of a scatter, whose condition compares an index with data."""

    def body(bb: Any, x: Any, i: Any, rows: Any) -> Any:
        return op.scatter_nd(x, i, rows)

    inputs = [("x", (5, 6), "float32"), ("i", (2, 1), "int64"), ("rows", (2, 6), "float32")]
    mod = VirtualTensors()(build(inputs, body))
    (func,) = [f for f in mod.functions.values() if isinstance(f, tirx.PrimFunc)]
    homes = {home: physical(home, shape) for home, shape, _ in inputs}
    order = [v.name for b in mod["main"].body.blocks for v in b.bindings[0].value.args[1].fields]
    (tensor,) = map_of(func, [homes[name] for name in order])
    arrays = {"x": MATRIX, "i": np.array([[3], [-2]]), "rows": 100 + MATRIX[:2]}
    expected = MATRIX.copy()
    expected[3] = arrays["rows"][1]
    np.testing.assert_array_equal(materialize(tensor, arrays), expected)


def test_it_composes_with_what_its_operand_is() -> None:
    func = legalized([("x", (6, 5), "float32")], lambda bb, x: op.permute_dims(x, [1, 0]))
    from tvmext.passes.virtual.operations import permute

    (tensor,) = map_of(func, [permute(physical("x", (5, 6)), [1, 0])])
    assert tensor == physical("x", (5, 6))


def test_a_dim_that_only_the_result_has_is_what_the_caller_says() -> None:
    """Not what has the same name there."""
    x = te.placeholder((4, 1), name="x")
    func = te.create_prim_func([x, te.compute((4, N), lambda i, j: x[i, 0])])
    inputs = [physical("x", (4, 1))]
    (tensor,) = map_of(func, inputs, results=[(4, symbol("m"))])
    assert tensor.shape == (4, symbol("m"))
    with pytest.raises(UnmappedError, match="nothing says what the size n is"):
        map_of(func, inputs)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (lambda bb, x: op.exp(x), "computed"),
        (lambda bb, x: op.add(x, x), "computed"),
        (lambda bb, x: op.sum(x, [0]), "single store"),
        (lambda bb, x: op.nn.softmax(x), "."),
        (lambda bb, x: op.where(bb.emit(op.greater(x, relax.const(0.0))), x, x), "."),
        (lambda bb, x: op.nn.pad(x, [0, 0, 1, 2], "reflect"), "not one of the index algebra"),
    ],
)
def test_what_computes_declines(body: Callable[..., Any], reason: str) -> None:
    mod = build([("x", (4, 6), "float32")], body)
    mod = tvm.transform.Sequential(
        [relax.transform.LegalizeOps(), relax.transform.AnnotateTIROpPattern()]
    )(mod)
    func = [f for f in mod.functions.values() if isinstance(f, tirx.PrimFunc)][-1]
    inputs: list[VirtualTensor] = [physical("x", (4, 6))] * (len(func.params) - 1)
    with pytest.raises(UnmappedError, match=reason):
        map_of(func, inputs)
