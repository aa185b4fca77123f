"""DecomposeBatchNorm: known statistics become one scale and one shift, anything else is left."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tvm
from tvm import relax
from tvm.relax import op

from tests.passes.modules import assert_same, build, operators, random
from tvmext.passes.constants import constant
from tvmext.passes.decompose_batch_norm import DecomposeBatchNorm

SIZE = 5


def decomposed(mod: tvm.IRModule) -> tvm.IRModule:
    return relax.transform.DeadCodeElimination()(DecomposeBatchNorm()(mod))


def network(shape: tuple[Any, ...], **attributes: Any) -> tvm.IRModule:
    parameters = [constant(np.abs(random(SIZE, seed=seed)) + 0.5) for seed in range(4)]
    settings = {"axis": 1, "epsilon": 1e-3, "training": False} | attributes

    def body(bb: relax.BlockBuilder, x: relax.Var) -> relax.Expr:
        return bb.emit(relax.TupleGetItem(bb.emit(op.nn.batch_norm(x, *parameters, **settings)), 0))

    return build([("x", shape, "float32")], body)


@pytest.mark.parametrize("switched_off", [{}, {"center": False}, {"scale": False}])
@pytest.mark.parametrize(("shape", "axis"), [((2, SIZE, 3, 4), 1), ((2, 3, SIZE), 2)])
def test_one_scale_and_one_shift(
    shape: tuple[int, ...], axis: int, switched_off: dict[str, bool]
) -> None:
    mod = network(shape, axis=axis, **switched_off)
    plain = decomposed(mod)
    assert operators(plain) == {"relax.multiply": 1, "relax.add": 1}
    assert_same(mod, plain, random(*shape))


def test_symbolic_sizes() -> None:
    n, h = tvm.tirx.Var("n", "int64"), tvm.tirx.Var("h", "int64")
    mod = network((n, SIZE, h))
    assert_same(mod, decomposed(mod), random(3, SIZE, 7))


def test_training_is_left() -> None:
    assert operators(decomposed(network((2, SIZE), training=True)))["relax.nn.batch_norm"] == 1


def test_statistics_that_are_inputs_are_left() -> None:
    def body(bb: relax.BlockBuilder, x: relax.Var, mean: relax.Var) -> relax.Expr:
        one = constant(np.ones(SIZE, np.float32))
        norm = bb.emit(op.nn.batch_norm(x, one, one, mean, one, axis=1, training=False))
        return bb.emit(relax.TupleGetItem(norm, 0))

    mod = build([("x", (2, SIZE), "float32"), ("mean", (SIZE,), "float32")], body)
    assert operators(decomposed(mod))["relax.nn.batch_norm"] == 1
