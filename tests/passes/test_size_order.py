"""Sizes that a run finds are defined before they are used, wherever fusion moves operators."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import tvm
from tvm import relax
from tvm.relax import transform
from tvm.tirx import Var

from tests.passes.modules import build, random, run
from tvmext.passes.names import FuseOperators
from tvmext.passes.size_order import sizes_first

INPUTS = [("x", (1,), "float32"), ("count", (1,), "int64")]


def sized_late(builder: relax.BlockBuilder, x: relax.Var, count: relax.Var) -> relax.Expr:
    """The exponential and the sum are one kernel, whose size is known only after the former."""
    early = builder.emit(relax.op.exp(x))
    shape = relax.call_pure_packed(
        "vm.builtin.tensor_to_shape", count, ty_args=[relax.ShapeType(ndim=1)]
    )
    n = Var("n", "int64")
    builder.match_cast(builder.emit(shape), relax.ShapeType([n]))
    filled = builder.emit(relax.op.broadcast_to(x, relax.ShapeExpr([n])))
    return relax.op.add(early, builder.emit(relax.op.cumsum(filled, 0)))


def legalized(body: Callable[..., relax.Expr]) -> tvm.IRModule:
    return transform.AnnotateTIROpPattern()(transform.LegalizeOps()(build(INPUTS, body)))


def test_a_size_is_defined_before_what_fusion_moved_up() -> None:
    mod = legalized(sized_late)
    fused = FuseOperators()(mod)
    relax.analysis.well_formed(fused)  # which raises
    assert len(fused["main"].body.blocks[0].bindings) < len(mod["main"].body.blocks[0].bindings)
    x, count = random(1), np.array([5])
    (result,) = run(transform.FuseTIR()(fused), x, count)
    np.testing.assert_allclose(result, np.exp(x) + np.arange(1, 6) * x, rtol=1e-5)


def test_bodies_of_branches_are_ordered_too() -> None:
    mod = legalized(sized_late)
    functions = {v: f for v, f in mod.functions_items() if v.name_hint != "main"}
    functions[tvm.ir.GlobalVar("body")] = mod["main"].without_attr("global_symbol")
    bodies = transform.Normalize()(tvm.IRModule(functions))
    fused = sizes_first(transform.FuseOps()(bodies), bodies)
    bindings = fused["body"].body.blocks[0].bindings
    (defined,) = (k for k, one in enumerate(bindings) if isinstance(one, relax.MatchCast))
    assert defined < len(bindings) - 1


def test_bindings_in_order_stay() -> None:
    mod = legalized(sized_late)
    (block,), (same,) = mod["main"].body.blocks, sizes_first(mod, mod)["main"].body.blocks
    assert all(a.same_as(b) for a, b in zip(block.bindings, same.bindings, strict=True))


def test_without_such_sizes_nothing_is_made_anew() -> None:
    mod = legalized(lambda _, x, count: relax.op.add(x, relax.op.astype(count, "float32")))
    assert sizes_first(mod, mod).same_as(mod)
