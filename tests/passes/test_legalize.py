"""Lowerings of our own give the values that the operator is defined to give."""

from __future__ import annotations

import numpy as np
import pytest
import tvm
from tvm import relax, tirx
from tvm.relax import op, transform

from tests.passes import modules
from tests.passes.modules import assert_same, build, random
from tvmext.passes.legalize import LEGALIZE


@pytest.mark.parametrize("size", [7, "n"])
def test_relu_keeps_nan(size: int | str) -> None:
    dim = tvm.tirx.Var(size, "int64") if isinstance(size, str) else size
    mod = modules.build([("x", [dim], "float32")], lambda _, x: relax.op.nn.relu(x))
    mod = relax.transform.LegalizeOps(LEGALIZE)(mod)
    assert "relax.nn.relu" not in modules.operators(mod)
    run = relax.VirtualMachine(tvm.compile(mod, "llvm"), tvm.cpu())["main"]
    x = np.array([np.nan, -1, 0, 2, np.inf, -np.inf, np.nan], np.float32)
    y = run(tvm.runtime.tensor(x)).numpy()
    np.testing.assert_array_equal(y, np.maximum(x, 0))


def test_a_dim_as_a_value_survives_fusion() -> None:
    past, seq = tirx.Var("past", "int64"), tirx.Var("seq", "int64")

    def body(bb: relax.BlockBuilder, x: relax.Var, y: relax.Var) -> relax.Expr:
        start = bb.emit(op.shape_to_tensor(relax.ShapeExpr([past])))
        start = bb.emit(op.reshape(start, []))
        return bb.emit(op.add(bb.emit(op.arange(0, seq, 1, "int64")), start))

    mod = build([("x", (past,), "float32"), ("y", (seq,), "float32")], body)
    fused = mod
    for step in (
        transform.LegalizeOps(LEGALIZE),
        transform.AnnotateTIROpPattern(),
        transform.FuseOps(),
        transform.FuseTIR(),
    ):
        fused = step(fused)
    assert_same(mod, fused, random(3), random(4))
