"""DecomposeStack: stack as concat."""

from __future__ import annotations

import pytest
from tvm import relax, tirx
from tvm.relax import op, transform

from tests.passes.modules import assert_same, build, operators, random
from tvmext.passes.constants import constant
from tvmext.passes.decompose_stack import DecomposeStack


@pytest.mark.parametrize("axis", [0, 1, 2, -1, -3])
def test_fires(axis: int) -> None:
    mod = build(
        [("x", (3, 4), "float32")],
        lambda bb, x: bb.emit(op.stack([x, bb.emit(op.negative(x))], axis)),
    )
    decomposed = DecomposeStack()(mod)
    assert operators(decomposed)["relax.stack"] == 0
    assert_same(mod, decomposed, random(3, 4))


def test_symbolic() -> None:
    n = tirx.Var("n", "int64")
    mod = build([("x", (n, 4), "float32")], lambda bb, x: bb.emit(op.stack([x, x, x], 1)))
    decomposed = DecomposeStack()(mod)
    assert operators(decomposed)["relax.concat"] == 1
    assert_same(mod, decomposed, random(5, 4))


def test_layout_conversion_survives_it() -> None:
    def body(bb: relax.BlockBuilder, x: relax.Var) -> relax.Expr:
        y = bb.emit(op.nn.conv2d(x, constant(random(4, 3, 3, 3))))
        return bb.emit(op.stack([y, y], 1))

    mod = build([("x", (1, 3, 8, 8), "float32")], body)
    converted = transform.ConvertLayout({"relax.nn.conv2d": ["NHWC", "OHWI"]})(
        DecomposeStack()(mod)
    )
    assert_same(mod, converted, random(1, 3, 8, 8))


def test_leaves_the_rest() -> None:
    mod = build([("x", (3, 4), "float32")], lambda bb, x: bb.emit(op.concat([x, x], 0)))
    assert operators(DecomposeStack()(mod)) == {"relax.concat": 1}
