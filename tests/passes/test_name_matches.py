"""Calls that match sizes get the names that the model has for them."""

from __future__ import annotations

import json

import numpy as np
import tvm
from tvm import relax, tirx
from tvm.relax import op, transform

from tests.passes.modules import build
from tvmext.frontends.model import Model
from tvmext.passes.name_matches import NameMatches
from tvmext.passes.names import NameValues

NAME = "Reshape 'a \"name\"\nof two lines'"


def matching() -> tvm.IRModule:
    """main(x, n): y has the shape that `n` holds, n is not negative."""

    def body(bb: relax.BlockBuilder, x: relax.Var, n: relax.Var) -> relax.Expr:
        zero = relax.const(np.array(0, np.int64), "int64")
        positive = bb.emit(op.maximum(n, zero))
        shape = bb.emit(op.tensor_to_shape(bb.emit(op.concat([n, positive], 0))))
        size = tirx.Var("size", "int64")
        bb.match_cast(shape, relax.ShapeType([size, size]))
        return bb.emit(op.broadcast_to(x, relax.ShapeExpr([size, 4])))

    return build([("x", (4,), "float32"), ("n", (1,), "int64")], body)


def contexts(matched: dict[str, str]) -> list[str]:
    """The texts of what matches sizes of values, of the module with these names."""
    mod = matching()
    passes = [
        NameValues(),
        transform.DecomposeOpsForInference(),
        transform.LegalizeOps(),
        transform.ToNonDataflow(),
        transform.RemovePurityChecking(),
        transform.CallTIRRewrite(),
        transform.LowerAllocTensor(),
        transform.LowerRuntimeBuiltin(),
        transform.VMShapeLower(),
    ]
    lowered = tvm.transform.Sequential(passes)(mod)
    before = lowered.script()
    named = NameMatches(Model(mod, {}, (), (), matched=matched))(lowered)
    assert lowered.script() == before, "the module was changed in place"
    found: list[str] = []

    def visit(expr: relax.Expr) -> None:
        if getattr(getattr(expr, "op", None), "global_symbol", "") == "vm.builtin.match_shape":
            found.append(expr.args[-1].value)

    relax.analysis.post_order_visit(named["main"], visit)
    return [text for text in found if "match_cast" in text]


def shape_of(mod: tvm.IRModule) -> str:
    """The variable whose sizes are matched."""
    bindings = [b for block in mod["main"].body.blocks for b in block.bindings]
    (cast,) = [b for b in bindings if isinstance(b, relax.MatchCast)]
    return cast.value.name


def test_fires_where_the_model_has_a_name() -> None:
    plain = contexts({})
    named = contexts({shape_of(matching()): NAME})
    assert len(plain) == len(named) >= 1
    changed = [text for text, before in zip(named, plain) if text != before]
    assert changed == [f"ErrorContext(match_cast, at={json.dumps(NAME)}) "]
    assert "\n" not in changed[0]


def test_must_not_fire_for_other_values() -> None:
    assert contexts({"another": NAME}) == contexts({})
