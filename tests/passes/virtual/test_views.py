"""Reshapes that stay alone cost nothing; those that cannot be views stay kernels."""

from __future__ import annotations

from typing import Any

import pytest
import tvm
from tvm import relax, tirx
from tvm.relax import op, transform

from tests.passes.modules import build, operators, random, run
from tvmext.passes.virtual.views import Views
from tvmext.passes.virtual.virtualize import VirtualTensors

N = tirx.Var("n", "int64")


def fused(mod: tvm.IRModule) -> tvm.IRModule:
    passes = [
        VirtualTensors(),
        transform.LegalizeOps(),
        transform.AnnotateTIROpPattern(),
        transform.FuseOps(),
        transform.FuseTIR(),
        Views(),
    ]
    return tvm.transform.Sequential(passes)(mod)


@pytest.mark.parametrize("n", [5, N], ids=str)
def test_a_lone_reshape_is_a_view(n: Any) -> None:
    mod = build(
        [("x", (n, 12), "float32")],
        lambda bb, x: op.nn.softmax(bb.emit(op.reshape(bb.emit(op.nn.softmax(x)), (n * 3, 4)))),
    )
    after = fused(mod)
    assert operators(after) == {"relax.call_tir": 2, "relax.reshape": 1}
    (expected,), (actual,) = (run(m, random(5, 12)) for m in (mod, after))
    assert (expected == actual).all()


@pytest.mark.parametrize("n", [5, N], ids=str)
def test_a_copy_between_views_is_a_plain_transpose(n: Any) -> None:
    def body(bb: relax.BlockBuilder, x: relax.Var) -> relax.Expr:
        heads = bb.emit(op.permute_dims(bb.emit(op.nn.softmax(x)), [1, 0, 2]))
        return op.nn.softmax(bb.emit(op.reshape(heads, (n, 12))))

    mod = build([("x", (3, n, 4), "float32")], body)
    after = fused(mod)
    assert operators(after) == {"relax.call_tir": 3, "relax.reshape": 1}
    (kernel,) = [f for g, f in after.functions.items() if g.name_hint == "permute_dims_reshape"]
    assert "//" not in kernel.script()
    (expected,), (actual,) = (run(m, random(3, 5, 4)) for m in (mod, after))
    assert (expected == actual).all()


def test_a_reshape_between_elementwise_operators_is_fused() -> None:
    mod = build(
        [("x", (6, 4), "float32")],
        lambda bb, x: op.exp(bb.emit(op.reshape(bb.emit(op.tanh(x)), (3, 8)))),
    )
    assert operators(fused(mod)) == {"relax.call_tir": 1}


def test_an_output_is_a_tensor_of_its_own() -> None:
    """The kernel before it writes the output itself."""
    mod = build([("x", (6, 4), "float32")], lambda bb, x: op.reshape(bb.emit(op.tanh(x)), (3, 8)))
    assert operators(fused(mod)) == {"relax.call_tir": 1}


@pytest.mark.parametrize("n", [6, N], ids=str)
def test_an_output_may_be_a_view_of_what_nobody_else_has(n: Any) -> None:
    """Of several views of one tensor, one; of an input, none."""

    def body(bb: relax.BlockBuilder, x: relax.Var) -> list[relax.Expr]:
        rows = bb.emit(op.nn.softmax(x))
        pairs, cubes = op.reshape(rows, (n * 2, 2)), op.reshape(rows, (n, 2, 2))
        return [pairs, cubes, op.reshape(x, (2 * n, 2))]

    mod = build([("x", (n, 4), "float32")], body)
    after = fused(mod)
    relax.analysis.well_formed(after)
    assert operators(after) == {"relax.call_tir": 3, "relax.reshape": 1}
    for expected, actual in zip(run(mod, random(6, 4)), run(after, random(6, 4)), strict=True):
        assert (expected == actual).all()
