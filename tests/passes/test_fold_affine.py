"""DecomposeBatchNorm and FoldAffine: batch norms end in the weights before them."""

from __future__ import annotations

import numpy as np
import pytest
import tvm
import tvm_ffi
from tvm import relax, tirx
from tvm.relax import op

from tests.passes.modules import assert_same, build, operators, random
from tvmext.passes.constants import constant
from tvmext.passes.decompose_batch_norm import DecomposeBatchNorm
from tvmext.passes.fold_affine import FoldAffine

WEIGHT = random(5, 3, 3, 3)


def channels(*, seed: int) -> relax.Expr:
    return constant(np.abs(random(1, 5, 1, 1, seed=seed)) + 0.5)


def batch_norm(x: relax.Expr, axis: int = 1, size: int = 5) -> relax.Expr:
    parameters = [constant(np.abs(random(size, seed=seed)) + 0.5) for seed in range(4)]
    return op.nn.batch_norm(x, *parameters, axis=axis, epsilon=1e-3, training=False)


def first(bb: relax.BlockBuilder, norm: relax.Expr) -> relax.Expr:
    return bb.emit(relax.TupleGetItem(bb.emit(norm), 0))


def optimise(mod: tvm.IRModule) -> tvm.IRModule:
    remove_dead = relax.transform.DeadCodeElimination()
    for step in (DecomposeBatchNorm(), remove_dead, FoldAffine(), remove_dead):
        mod = step(mod)
    return mod


def test_batch_norm_goes_into_the_convolution() -> None:
    def body(bb: relax.BlockBuilder, x: relax.Var) -> relax.Expr:
        biased = op.add(bb.emit(op.nn.conv2d(x, constant(WEIGHT))), channels(seed=7))
        return bb.emit(op.nn.relu(first(bb, batch_norm(bb.emit(biased)))))

    mod = build([("x", (2, 3, 6, 5), "float32")], body)
    folded = optimise(mod)
    assert operators(folded) == {"relax.nn.conv2d": 1, "relax.add": 1, "relax.nn.relu": 1}
    assert_same(mod, folded, random(2, 3, 6, 5))


def test_symbolic_batch_and_size() -> None:
    n, h = tirx.Var("n", "int64"), tirx.Var("h", "int64")
    mod = build(
        [("x", (n, 3, h, 6), "float32")],
        lambda bb, x: first(bb, batch_norm(bb.emit(op.nn.conv2d(x, constant(WEIGHT))))),
    )
    folded = optimise(mod)
    assert operators(folded) == {"relax.nn.conv2d": 1, "relax.add": 1}
    assert_same(mod, folded, random(2, 3, 7, 6))


def test_batch_norm_without_a_convolution_becomes_scale_and_shift() -> None:
    mod = build(
        [("x", (2, 5, 4, 4), "float32")], lambda bb, x: first(bb, batch_norm(bb.emit(op.abs(x))))
    )
    folded = optimise(mod)
    assert operators(folded) == {"relax.abs": 1, "relax.multiply": 1, "relax.add": 1}
    assert_same(mod, folded, random(2, 5, 4, 4))


def test_channels_last() -> None:
    def body(bb: relax.BlockBuilder, x: relax.Var) -> relax.Expr:
        weight = constant(np.ascontiguousarray(WEIGHT.transpose(0, 2, 3, 1)))
        conv = op.nn.conv2d(x, weight, data_layout="NHWC", kernel_layout="OHWI")
        return first(bb, batch_norm(bb.emit(conv), axis=3))

    mod = build([("x", (1, 6, 6, 3), "float32")], body)
    folded = optimise(mod)
    assert operators(folded) == {"relax.nn.conv2d": 1, "relax.add": 1}
    assert_same(mod, folded, random(1, 6, 6, 3))


@pytest.mark.parametrize("step", [op.multiply, op.divide, op.subtract])
def test_matmul(step: object) -> None:
    def body(bb: relax.BlockBuilder, x: relax.Var) -> relax.Expr:
        y = bb.emit(op.matmul(x, constant(random(4, 5))))
        y = bb.emit(step(y, constant(np.abs(random(5, seed=3)) + 0.5)))
        return bb.emit(op.add(y, constant(random(5, seed=4))))

    mod = build([("x", (2, 3, 4), "float32")], body)
    folded = optimise(mod)
    assert operators(folded) == {"relax.matmul": 1, "relax.add": 1}
    assert_same(mod, folded, random(2, 3, 4))


def test_two_readers_keep_the_convolution() -> None:
    def body(bb: relax.BlockBuilder, x: relax.Var) -> list[relax.Expr]:
        conv = bb.emit(op.nn.conv2d(x, constant(WEIGHT)))
        return [bb.emit(op.multiply(conv, channels(seed=1))), bb.emit(op.abs(conv))]

    mod = build([("x", (1, 3, 5, 5), "float32")], body)
    folded = optimise(mod)
    assert operators(folded) == operators(mod)


def test_a_bias_alone_stays() -> None:
    def body(bb: relax.BlockBuilder, x: relax.Var) -> relax.Expr:
        return bb.emit(op.add(bb.emit(op.nn.conv2d(x, constant(WEIGHT))), channels(seed=1)))

    mod = build([("x", (1, 3, 5, 5), "float32")], body)
    assert tvm_ffi.structural_equal(FoldAffine()(mod), mod)


def test_a_scale_along_another_axis_stays() -> None:
    def body(bb: relax.BlockBuilder, x: relax.Var) -> relax.Expr:
        conv = bb.emit(op.nn.conv2d(x, constant(WEIGHT)))
        return bb.emit(op.multiply(conv, constant(random(1, 1, 1, 3))))

    mod = build([("x", (1, 3, 5, 5), "float32")], body)
    assert operators(optimise(mod)) == operators(mod)


def test_a_constant_minus_the_result_stays() -> None:
    def body(bb: relax.BlockBuilder, x: relax.Var) -> relax.Expr:
        conv = bb.emit(op.nn.conv2d(x, constant(WEIGHT)))
        return bb.emit(op.subtract(channels(seed=1), conv))

    mod = build([("x", (1, 3, 5, 5), "float32")], body)
    assert operators(optimise(mod)) == operators(mod)


def test_statistics_of_the_batch_stay() -> None:
    def body(bb: relax.BlockBuilder, x: relax.Var) -> relax.Expr:
        parameters = [constant(np.ones(5, "float32"))] * 4
        return first(bb, op.nn.batch_norm(x, *parameters, axis=1, training=True))

    mod = build([("x", (2, 5, 4, 4), "float32")], body)
    assert operators(optimise(mod)) == {"relax.nn.batch_norm": 1}
