"""FoldConstants: fires on constants, leaves the rest, agrees with TVM's own operators."""

from __future__ import annotations

import numpy as np
import pytest
from tvm import relax, tirx
from tvm.relax import op

from tests.passes.modules import assert_same, build, operators, random, run
from tvmext.passes.constants import constant
from tvmext.passes.fold_constants import FoldConstants

A, B = random(3, 4), random(3, 4, seed=1)
INDICES = np.array([2, 0], "int64")

FOLDABLE = {
    "reshape": lambda: op.reshape(constant(A), (4, 3)),
    "flatten": lambda: op.flatten(constant(A)),
    "squeeze": lambda: op.squeeze(constant(A[:, None]), [1]),
    "expand_dims": lambda: op.expand_dims(constant(A), [0, 2]),
    "broadcast_to": lambda: op.broadcast_to(constant(A[:, :1]), (3, 4)),
    "permute_dims": lambda: op.permute_dims(constant(A), [1, 0]),
    "permute_dims, default": lambda: op.permute_dims(constant(A)),
    "concat": lambda: op.concat([constant(A), constant(B)], 1),
    "strided_slice": lambda: op.strided_slice(constant(A), [0, 1], [1, 0], [9, -1], [1, 2]),
    "backward slice": lambda: op.strided_slice(constant(A), [1], [2], [-5], [-1]),
    "backward slice, end kept": lambda: op.strided_slice(constant(A), [1], [3], [0], [-2]),
    "take": lambda: op.take(constant(A), constant(INDICES), 1),
    "astype": lambda: op.astype(constant(A * 3), "int32"),
    "divide": lambda: op.divide(constant(A), constant(B)),
    "integer divide": lambda: op.divide(
        constant(np.array([-7, 7], "int64")), constant(np.array([2, 2], "int64"))
    ),
    "sum": lambda: op.sum(constant(A), [1], keepdims=True),
    "mean of all": lambda: op.mean(constant(A)),
    "max": lambda: op.max(constant(A), [0]),
    "rsqrt": lambda: op.rsqrt(constant(np.abs(A) + 1)),
    "where": lambda: op.where(constant(A > 0), constant(A), constant(B)),
    "maximum": lambda: op.maximum(constant(A), constant(B)),
    "power": lambda: op.power(constant(np.abs(A)), constant(B)),
    "tanh": lambda: op.tanh(constant(A)),
    "less": lambda: op.less(constant(A), constant(B)),
    "logical_not": lambda: op.logical_not(constant(A > 0)),
}


@pytest.mark.parametrize("name", FOLDABLE)
def test_fires(name: str) -> None:
    mod = build([("x", (1,), "float32")], lambda bb, x: [bb.emit(FOLDABLE[name]()), x])
    folded = FoldConstants()(mod)
    assert not operators(folded)
    expected, actual = run(mod, random(1))[0], run(folded, random(1))[0]
    assert actual.dtype == expected.dtype and actual.shape == expected.shape
    np.testing.assert_allclose(actual, expected, rtol=1e-6)


def test_folds_through_bindings() -> None:
    def body(bb: relax.BlockBuilder, x: relax.Var) -> relax.Expr:
        turned = bb.emit(op.permute_dims(constant(A)))
        return bb.emit(op.add(x, bb.emit(op.multiply(turned, turned))))

    mod = build([("x", (4, 3), "float32")], body)
    folded = FoldConstants()(mod)
    assert operators(folded) == {"relax.add": 1}
    assert_same(mod, folded, random(4, 3))


def test_leaves_what_depends_on_an_input() -> None:
    mod = build([("x", (3, 4), "float32")], lambda bb, x: bb.emit(op.add(x, constant(A))))
    assert operators(FoldConstants()(mod)) == {"relax.add": 1}


def test_leaves_a_symbolic_result() -> None:
    n = tirx.Var("n", "int64")
    mod = build(
        [("x", (n, 1), "float32")],
        lambda bb, x: bb.emit(op.add(x, bb.emit(op.broadcast_to(constant(A[:1, :1]), (n, 1))))),
    )
    folded = FoldConstants()(mod)
    assert operators(folded)["relax.broadcast_to"] == 1
    assert_same(mod, folded, random(5, 1))


def test_does_not_blow_up_a_broadcast() -> None:
    shape = (1024, 1024)
    mod = build(
        [("x", shape, "float32")],
        lambda bb, x: bb.emit(op.add(x, bb.emit(op.broadcast_to(constant(A[:1, :1]), shape)))),
    )
    assert operators(FoldConstants()(mod))["relax.broadcast_to"] == 1


def test_leaves_a_slice_at_a_symbolic_place() -> None:
    n = tirx.Var("n", "int64")
    mod = build(
        [("x", (n,), "float32")],
        lambda bb, x: [bb.emit(op.strided_slice(constant(A), [0], [n], [n + 1])), x],
    )
    folded = FoldConstants()(mod)
    assert operators(folded)["relax.strided_slice"] == 1
    assert_same(mod, folded, random(2))
