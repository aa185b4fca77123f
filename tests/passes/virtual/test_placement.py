"""Kernels that store for those who move their results: which are joined, with the same results."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import tvm
from tvm import relax
from tvm.relax import op, transform

from tests.passes.modules import assert_same, build, operators, random
from tests.passes.virtual.test_join import SCHEDULE
from tvmext.passes.virtual.check import movement_kernels
from tvmext.passes.virtual.placement import JoinStores
from tvmext.passes.virtual.views import Views
from tvmext.passes.virtual.virtualize import VirtualTensors


def joined(mod: tvm.IRModule, memory: bool = False) -> tvm.IRModule:
    """Up to what is scheduled."""
    fuse = [
        VirtualTensors(),
        transform.LegalizeOps(),
        transform.AnnotateTIROpPattern(),
        transform.FuseOps(),
        transform.FuseTIR(),
    ]
    fused = tvm.transform.Sequential(fuse)(mod)
    before = fused.script()
    after = JoinStores(SCHEDULE.reading, memory)(fused)
    assert fused.script() == before, "the module was changed in place"
    relax.analysis.well_formed(after)  # raises
    return Views()(after)


def kernels(mod: tvm.IRModule) -> int:
    return operators(mod)["relax.call_tir"]


def picture(bb: Any, x: relax.Var, w: relax.Var) -> relax.Expr:
    """A convolution in NHWC whose result is wanted in NCHW."""
    made = bb.emit(op.nn.conv2d(x, w, data_layout="NHWC", kernel_layout="OHWI"))
    return op.permute_dims(made, [0, 3, 1, 2])


def gated(bb: Any, x: relax.Var, w: relax.Var) -> relax.Expr:
    """Rows under another shape, as exporters write a linear layer."""
    rows = bb.emit(op.matmul(bb.emit(op.reshape(x, (24, 32))), w))
    return op.add(bb.emit(op.nn.gelu(bb.emit(op.reshape(rows, (1, 24, 32))))), x)


PICTURE = [("x", (1, 20, 20, 16), "float32"), ("w", (48, 1, 1, 16), "float32")]
ROWS = [("x", (1, 24, 32), "float32"), ("w", (32, 32), "float32")]


def across(bb: Any, x: relax.Var, w: relax.Var) -> relax.Expr:
    """A product with one axis of rows that is wanted with its columns first."""
    return op.permute_dims(bb.emit(op.matmul(x, w)), [1, 0])


WIDE = [("x", (96, 32), "float32"), ("w", (32, 64), "float32")]


@pytest.mark.parametrize(
    ("inputs", "body", "memory", "left"),
    [
        (PICTURE, picture, False, 1),
        (ROWS, gated, False, 1),
        (WIDE, across, False, 2),
        (WIDE, across, True, 1),
    ],
    ids=["blocks", "reshaped", "dear", "memory"],
)
def test_what_is_joined(inputs: list, body: Callable[..., Any], memory: bool, left: int) -> None:
    """Blocks of a picture are turned; elements stored one by one are dearer than another kernel."""
    mod = build(inputs, body)
    after = joined(mod, memory)
    assert kernels(after) == left
    assert [k.reason for k in movement_kernels(after)] == ["priced"] * (left - 1)
    scheduled = SCHEDULE(after)
    assert_same(mod, scheduled, *(random(*shape) for _, shape, _ in inputs))


def test_a_tensor_with_two_readers_is_written() -> None:
    def body(bb: Any, x: relax.Var, w: relax.Var) -> list[relax.Expr]:
        made = bb.emit(op.matmul(bb.emit(op.reshape(x, (24, 32))), w))
        other = bb.emit(op.nn.softmax(made))
        return [bb.emit(op.exp(bb.emit(op.reshape(made, (1, 24, 32))))), other]

    assert kernels(joined(build(ROWS, body), True)) == 3
