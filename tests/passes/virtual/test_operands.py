"""Products that compute their operands: which are joined, with the same results."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import tvm
from tvm import relax
from tvm.relax import op, transform

from tests.passes.modules import assert_same, build, operators, random
from tests.passes.virtual.test_join import SCHEDULE
from tvmext.passes.virtual.operands import JoinOperands
from tvmext.passes.virtual.views import Views


def joined(mod: tvm.IRModule) -> tvm.IRModule:
    """Up to what is scheduled."""
    fuse = [
        transform.LegalizeOps(),
        transform.AnnotateTIROpPattern(),
        transform.FuseOps(),
        transform.FuseTIR(),
    ]
    fused = tvm.transform.Sequential(fuse)(mod)
    before = fused.script()
    after = JoinOperands(SCHEDULE.reading)(fused)
    assert fused.script() == before, "the module was changed in place"
    relax.analysis.well_formed(after)  # raises
    return Views()(after)


def activated(bb: Any, x: relax.Expr, scale: relax.Var) -> relax.Expr:
    return bb.emit(op.nn.relu(bb.emit(op.multiply(x, scale))))


def conv(bb: Any, x: relax.Expr, w: relax.Var, padding: int = 0) -> relax.Expr:
    return op.nn.conv2d(x, w, padding=padding, data_layout="NHWC", kernel_layout="OHWI")


def pointwise(bb: Any, x: relax.Var, scale: relax.Var, w: relax.Var) -> relax.Expr:
    return conv(bb, activated(bb, x, scale), w)


def padded(bb: Any, x: relax.Var, scale: relax.Var, w: relax.Var) -> relax.Expr:
    return conv(bb, activated(bb, x, scale), w, padding=1)


def concat(bb: Any, x: relax.Var, y: relax.Var, scale: relax.Var, w: relax.Var) -> list[relax.Expr]:
    """A layer of a DenseNet: what came before it is read again by the next one."""
    both = bb.emit(op.concat([x, y, bb.emit(op.exp(y))], axis=3))
    return conv(bb, activated(bb, both, scale), w)


def gated(bb: Any, x: relax.Var, scale: relax.Var, w: relax.Var) -> relax.Expr:
    """Elementary functions are vector code in a stage as well."""
    gate = bb.emit(op.multiply(x, bb.emit(op.sigmoid(bb.emit(op.multiply(x, scale))))))
    return conv(bb, gate, w)


PICTURE = ("x", (2, 17, 19, 24), "float32")
SCALE = ("scale", (24,), "float32")
ONE, NINE = ("w", (40, 1, 1, 24), "float32"), ("w", (40, 3, 3, 24), "float32")
PARTS = [
    ("x", (1, 28, 28, 20), "float32"),
    ("y", (1, 28, 28, 33), "float32"),
    ("scale", (86,), "float32"),
    ("w", (32, 1, 1, 86), "float32"),
]


@pytest.mark.parametrize(
    ("inputs", "body", "left"),
    [
        ([PICTURE, SCALE, ONE], pointwise, 1),
        ([PICTURE, SCALE, NINE], padded, 1),
        ([PICTURE, SCALE, ONE], gated, 1),
        (PARTS, concat, 1),
    ],
    ids=["pointwise", "padded", "gated", "concat"],
)
def test_what_is_joined(inputs: list, body: Callable[..., Any], left: int) -> None:
    mod = build(inputs, body)
    after = joined(mod)
    assert operators(after)["relax.call_tir"] == left
    assert_same(mod, SCHEDULE(after), *(random(*shape) for _, shape, _ in inputs))


def test_what_has_two_readers_is_computed_once() -> None:
    def body(bb: Any, x: relax.Var, scale: relax.Var, w: relax.Var) -> list[relax.Expr]:
        made = activated(bb, x, scale)
        return [bb.emit(conv(bb, made, w)), bb.emit(op.nn.softmax(made))]

    assert operators(joined(build([PICTURE, SCALE, ONE], body)))["relax.call_tir"] == 3


def test_what_would_take_more_memory_is_not_joined() -> None:
    """Two pictures that only their sum needs are gone when the product runs."""

    def body(bb: Any, x: relax.Var, scale: relax.Var, w: relax.Var) -> relax.Expr:
        one, other = (bb.emit(op.cumsum(x, axis=axis)) for axis in (1, 2))
        return conv(bb, bb.emit(op.multiply(bb.emit(op.add(one, other)), scale)), w)

    mod = build([PICTURE, SCALE, ONE], body)
    assert operators(joined(mod)) == {"relax.cumsum": 2, "relax.call_tir": 2}
