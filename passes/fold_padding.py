"""Let a convolution pad by itself instead of reading a padded copy.

    conv(pad(x, 0, p), padding=q)   =   conv(x, padding=p + q)

for a constant padding with zeros of spatial axes only, as exporters write the asymmetric padding of
strided convolutions.
"""

from __future__ import annotations

from typing import Any

import tvm
from tvm import relax
from tvm.relax import op
from tvm.relax.expr_functor import PyExprMutator, mutator

from .rewrite import rewrite

_CONVOLUTIONS = {
    "relax.nn.conv1d": op.nn.conv1d,
    "relax.nn.conv2d": op.nn.conv2d,
    "relax.nn.conv3d": op.nn.conv3d,
}


@tvm.transform.module_pass(opt_level=1, name="FoldPadding")
class FoldPadding:
    """Rewrite every convolution of a padded tensor; unread padding is dead code afterwards."""

    def transform_module(self, mod: tvm.IRModule, _ctx: Any) -> tvm.IRModule:
        return rewrite(mod, _Rewriter(mod))


@mutator
class _Rewriter(PyExprMutator):
    def visit_call_(self, call: relax.Call) -> relax.Expr:
        call = self.visit_expr_post_order(call)
        rebuild = _CONVOLUTIONS.get(getattr(call.op, "name", ""))
        if rebuild is None or not isinstance(call.args[0], relax.Var):
            return call
        pad = self.lookup_binding(call.args[0])
        widths = _zero_padding(pad)
        if widths is None:
            return call
        attrs = call.attrs
        layout = str(attrs.data_layout)
        channel_axes = (layout.index("N"), layout.index("C"))
        if any(widths[axis] != (0, 0) for axis in channel_axes):
            return call
        spatial = [width for axis, width in enumerate(widths) if axis not in channel_axes]
        before_and_after = [before for before, _ in spatial] + [after for _, after in spatial]
        return rebuild(
            pad.args[0],
            call.args[1],
            strides=attrs.strides,
            padding=[added + int(own) for added, own in zip(before_and_after, attrs.padding)],
            dilation=attrs.dilation,
            groups=attrs.groups,
            data_layout=layout,
            kernel_layout=attrs.kernel_layout,
            out_layout=attrs.out_layout,
            out_dtype=attrs.out_dtype,
        )


def _zero_padding(expr: relax.Expr | None) -> list[tuple[int, int]] | None:
    """(before, after) per axis of a constant padding with zeros, nothing cut off, else None."""
    if not isinstance(expr, relax.Call) or getattr(expr.op, "name", "") != "relax.nn.pad":
        return None
    if str(expr.attrs.pad_mode) != "constant" or float(expr.attrs.pad_value) != 0:
        return None
    flat = [int(width) for width in expr.attrs.pad_width]
    return list(zip(flat[::2], flat[1::2])) if all(width >= 0 for width in flat) else None
