"""RMS norms as exporters write them become one operator, and one kernel."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import tvm
from tvm import relax, tirx
from tvm.relax import op

from tests.passes.modules import assert_same, build, operators, random
from tvmext.passes.fuse_rms_norm import FuseRmsNorm

EPSILON = relax.const(1e-5, "float32")
Norm = Callable[[relax.BlockBuilder, relax.Expr], relax.Expr]


def shifted(b: relax.BlockBuilder, square: relax.Expr, axis: int = -1) -> relax.Expr:
    return b.emit(op.add(b.emit(op.mean(b.emit(square), [axis], keepdims=True)), EPSILON))


NORMS: dict[str, Norm] = {
    "llama": lambda b, x: op.multiply(
        x,
        b.emit(
            op.divide(
                relax.const(1.0, "float32"),
                b.emit(op.sqrt(shifted(b, op.power(x, relax.const(2.0, "float32"))))),
            )
        ),
    ),
    "rsqrt": lambda b, x: op.multiply(b.emit(op.rsqrt(shifted(b, op.multiply(x, x)))), x),
    "quotient": lambda b, x: op.divide(x, b.emit(op.sqrt(shifted(b, op.square(x), 2)))),
}
OTHERS: dict[str, Norm] = {
    "another axis": lambda b, x: op.multiply(x, b.emit(op.rsqrt(shifted(b, op.square(x), 1)))),
    "another tensor": lambda b, x: op.multiply(
        x, b.emit(op.rsqrt(shifted(b, op.square(b.emit(op.exp(x))))))
    ),
}


def network(norm: Norm, shape: list, weight_shape: list) -> tvm.IRModule:
    def body(b: relax.BlockBuilder, x: relax.Expr, weight: relax.Expr) -> relax.Expr:
        return op.multiply(weight, b.emit(norm(b, x)))

    return build([("x", shape, "float32"), ("w", weight_shape, "float32")], body)


@pytest.mark.parametrize("shape", [[2, 3, 8], [2, "n", 8]])
@pytest.mark.parametrize("norm", NORMS)
def test_becomes_the_operator(norm: str, shape: list) -> None:
    dims = [tirx.Var(d, "int64") if isinstance(d, str) else d for d in shape]
    before = network(NORMS[norm], dims, [8])
    after = FuseRmsNorm()(before)
    assert operators(after) == {"relax.nn.rms_norm": 1}
    assert_same(before, after, random(2, 3, 8), random(8, seed=1))


def test_a_weight_with_dims_of_one() -> None:
    before = network(NORMS["rsqrt"], [2, 3, 8], [1, 1, 8])
    after = FuseRmsNorm()(before)
    assert operators(after) == {"relax.nn.rms_norm": 1, "relax.reshape": 1}
    assert_same(before, after, random(2, 3, 8), random(1, 1, 8, seed=1))


@pytest.mark.parametrize(
    ("norm", "weight_shape"),
    [(OTHERS["another axis"], [8]), (OTHERS["another tensor"], [8]), (NORMS["rsqrt"], [3, 8])],
)
def test_stays(norm: Norm, weight_shape: list) -> None:
    after = FuseRmsNorm()(network(norm, [2, 3, 8], weight_shape))
    assert "relax.nn.rms_norm" not in operators(after)


def test_one_number_per_row_is_no_weight() -> None:
    after = FuseRmsNorm()(network(NORMS["rsqrt"], [2, 3, 8], [1]))
    assert "relax.nn.rms_norm" not in operators(after)
