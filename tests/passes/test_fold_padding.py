"""FoldPadding: a convolution pads by itself."""

from __future__ import annotations

import numpy as np
import pytest
import tvm
from tvm import relax, tirx
from tvm.relax import op, transform

from tests.passes.modules import assert_same, build, operators, random
from tvmext.passes.constants import constant
from tvmext.passes.fold_padding import FoldPadding

WEIGHT = random(5, 3, 3, 3)


def padded(widths: list[int], value: float = 0, mode: str = "constant", **conv: object):
    def body(bb: relax.BlockBuilder, x: relax.Var) -> relax.Expr:
        y = bb.emit(op.nn.pad(x, widths, mode, value))
        return bb.emit(op.nn.conv2d(y, constant(WEIGHT), **conv))

    return body


def fold(mod: tvm.IRModule) -> tvm.IRModule:
    return transform.DeadCodeElimination()(FoldPadding()(mod))


@pytest.mark.parametrize("padding", [0, 1, (1, 0), (0, 2, 1, 3)])
def test_fires(padding: object) -> None:
    body = padded([0, 0, 0, 0, 0, 1, 2, 1], strides=2, padding=padding)
    mod = build([("x", (2, 3, 7, 6), "float32")], body)
    folded = fold(mod)
    assert operators(folded) == {"relax.nn.conv2d": 1}
    assert_same(mod, folded, random(2, 3, 7, 6))


def test_symbolic() -> None:
    n, h = tirx.Var("n", "int64"), tirx.Var("h", "int64")
    body = padded([0, 0, 0, 0, 0, 1, 0, 1], strides=2)
    mod = build([("x", (n, 3, h, 6), "float32")], body)
    folded = fold(mod)
    assert operators(folded) == {"relax.nn.conv2d": 1}
    assert_same(mod, folded, random(2, 3, 9, 6))


def test_channels_last_and_one_axis() -> None:
    def body(bb: relax.BlockBuilder, x: relax.Var) -> relax.Expr:
        y = bb.emit(op.nn.pad(x, [0, 0, 2, 1, 0, 0]))
        weight = constant(random(4, 3, 3))
        return bb.emit(op.nn.conv1d(y, weight, data_layout="NWC", kernel_layout="OIW"))

    mod = build([("x", (2, 8, 3), "float32")], body)
    folded = fold(mod)
    assert operators(folded) == {"relax.nn.conv1d": 1}
    assert_same(mod, folded, random(2, 8, 3))


@pytest.mark.parametrize(
    "body",
    [
        padded([0, 0, 0, 0, 0, 1, 0, 1], value=1.0),
        padded([0, 0, 0, 0, 1, 1, 1, 1], mode="reflect"),
        padded([1, 0, 0, 0, 0, 0, 0, 0]),
        padded([0, 0, 0, 0, 0, -1, 0, 0]),
    ],
    ids=["other value", "reflection", "batch axis", "cut off"],
)
def test_leaves(body: object) -> None:
    mod = build([("x", (2, 3, 7, 6), "float32")], body)
    assert operators(fold(mod)) == operators(mod)


def test_another_reader_keeps_the_padding() -> None:
    def body(bb: relax.BlockBuilder, x: relax.Var) -> list[relax.Expr]:
        y = bb.emit(op.nn.pad(x, [0, 0, 0, 0, 0, 1, 0, 1]))
        return [bb.emit(op.nn.conv2d(y, constant(WEIGHT))), bb.emit(op.abs(y))]

    mod = build([("x", (1, 3, 6, 6), "float32")], body)
    folded = fold(mod)
    assert operators(folded) == operators(mod)
    assert_same(mod, folded, np.abs(random(1, 3, 6, 6)))
