"""Lowerings of Relax operators to TIR that replace TVM's, because those give other values.

`relax.nn.relu` becomes ``max(0, x)``. TVM writes ``max(x, 0)``; a comparison with NaN is false and
leaves the second argument, so a NaN in the network would come out as 0.
"""

from __future__ import annotations

from tvm import relax, te, tirx


def _relu(builder: relax.BlockBuilder, call: relax.Call) -> relax.Expr:
    def relu(x: te.Tensor) -> te.Tensor:
        zero = tirx.const(0, x.dtype)
        return te.compute(x.shape, lambda *index: te.max(zero, x(*index)), name="relu")

    return builder.call_te(relu, call.args[0], primfunc_name_hint="relu")


LEGALIZE = {"relax.nn.relu": _relu}
"""{operator: lowering}, the `customize_legalize_map` of TVM's pass LegalizeOps."""
