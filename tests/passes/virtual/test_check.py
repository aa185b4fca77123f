"""The list of kernels that only move data, and why they are left."""

from __future__ import annotations

import pytest
import tvm
from tvm import relax, tirx
from tvm.relax import op

from tests.passes.modules import build
from tvmext.passes.virtual.check import movement_kernels
from tvmext.passes.virtual.virtualize import VirtualTensors

N = tirx.Var("n", "int64")


def lowered(mod: tvm.IRModule) -> tvm.IRModule:
    passes = [
        VirtualTensors(),
        relax.transform.LegalizeOps(),
        relax.transform.AnnotateTIROpPattern(),
        relax.transform.FuseOps(),
        relax.transform.FuseTIR(),
    ]
    return tvm.transform.Sequential(passes)(mod)


def test_a_kernel_that_computes_is_none() -> None:
    mod = build([("x", (4, 6), "float32")], lambda bb, x: op.exp(bb.emit(op.permute_dims(x))))
    assert movement_kernels(lowered(mod)) == []


@pytest.mark.parametrize("n", [4, N], ids=str)
def test_an_output_that_is_an_input_is_forced(n: object) -> None:
    def body(bb, x):
        return op.permute_dims(bb.emit(op.reshape(x, (n, 3, 2))), [0, 2, 1])

    mod = lowered(build([("x", (n, 6), "float32")], body))
    (kernel,) = movement_kernels(mod, {"n": 4})
    assert kernel.reason == "forced"
    assert kernel.nodes == ("reshape", "permute_dims")
    assert kernel.detail == "input x for output 0"
    assert kernel.bytes == 4 * 6 * 4
    (unbound,) = movement_kernels(mod)
    assert unbound.bytes == (96 if n == 4 else None)


def test_who_reads_it_is_told() -> None:
    def body(bb, x):
        turned = bb.emit(op.permute_dims(bb.emit(op.nn.softmax(x))))
        return op.nn.softmax(bb.emit(op.concat([turned, turned])))

    (kernel,) = movement_kernels(lowered(build([("x", (4, 6), "float32")], body)))
    assert (kernel.reason, kernel.detail) == ("no rule", "softmax for softmax1")


def test_a_mask_computes_and_an_index_moves() -> None:
    def mask(bb, hidden, x, i):
        return op.where(hidden, relax.const(-1.0), relax.const(0.0))

    def update(bb, hidden, x, i):
        return op.scatter_nd(x, i, bb.emit(op.full((1, 6), relax.const(0.0))))

    inputs = [("hidden", (4, 6), "bool"), ("x", (4, 6), "float32"), ("i", (1, 1), "int64")]
    assert movement_kernels(lowered(build(inputs, mask))) == []
    (kernel,) = movement_kernels(lowered(build(inputs, update)))
    assert kernel.reason == "forced"
