"""Lowerings of Relax operators to TIR in place of TVM's.

`relax.nn.relu` becomes ``max(0, x)``. TVM writes ``max(x, 0)``; a comparison with NaN is false and
leaves the second argument, so a NaN in the network would come out as 0.

`relax.shape_to_tensor` becomes what TVM makes of it, marked as opaque to fusion: FuseTIR crashes on
a group in which a dim is both an argument and the size of another member.
"""

from __future__ import annotations

from tvm import relax, te, tirx
from tvm.ir import Op

OPAQUE = 8
"""TVM's OpPatternKind of functions that FuseOps leaves alone (include/tvm/relax/op_attr_types.h)."""


def _relu(builder: relax.BlockBuilder, call: relax.Call) -> relax.Expr:
    def relu(x: te.Tensor) -> te.Tensor:
        zero = tirx.const(0, x.dtype)
        return te.compute(x.shape, lambda *index: te.max(zero, x(*index)), name="relu")

    return builder.call_te(relu, call.args[0], primfunc_name_hint="relu")


def _shape_to_tensor(builder: relax.BlockBuilder, call: relax.Call) -> relax.Expr:
    lowered = Op.get("relax.shape_to_tensor").get_attr("FLegalize")(builder, call)
    if getattr(lowered.op, "name", "") == "relax.call_tir":
        function = lowered.args[0]
        builder.update_func(function, builder.get()[function].with_attr("op_pattern", OPAQUE))
    return lowered


LEGALIZE = {"relax.nn.relu": _relu, "relax.shape_to_tensor": _shape_to_tensor}
"""{operator: lowering}, the `customize_legalize_map` of TVM's pass LegalizeOps."""
