"""Half types store, float32 computes.

matmul(x, w) -> float16       =     astype(matmul(x, w) -> float32, float16)
f(x: bfloat16) -> bfloat16    =     astype(f(astype(x, float32)), bfloat16)

for every f but those that only move elements, and for sums and means of float16, whose counts may
be beyond what it holds (65504). TVM's legalization of bfloat16 refuses some operators and makes
others wrong (brain_floats.py). Where a machine has instructions for the type ("native"), its
convolutions are taken as matmul is, and its casts are casts.
"""

from __future__ import annotations

from typing import Any

import tvm
from tvm import relax
from tvm.relax.expr_functor import PyExprMutator, mutator

from .brain_floats import rounded
from .quantized.products import CONVOLUTIONS
from .rewrite import rewrite

HALVES = ("float16", "bfloat16")

MOVES = frozenset({
    "relax.astype", "relax.broadcast_to", "relax.concat", "relax.dynamic_strided_slice",
    "relax.expand_dims", "relax.flatten", "relax.flip", "relax.gather_elements", "relax.gather_nd",
    "relax.layout_transform", "relax.permute_dims", "relax.repeat",
    "relax.reshape", "relax.scatter_elements", "relax.scatter_nd", "relax.shape_of", "relax.split",
    "relax.squeeze", "relax.stack", "relax.strided_slice", "relax.take", "relax.tile",
})  # fmt: skip
"""Operators that take bfloat16 as it is; of other calls those of functions do."""
SUMS = frozenset({"relax.mean", "relax.sum", "relax.std", "relax.variance"})
"""Operators that add up, over axes, more than float16 has digits for."""
KEPT = (
    "strides", "padding", "dilation", "groups", "data_layout", "kernel_layout", "out_layout",
)  # fmt: skip
"""Of a convolution."""


@tvm.transform.module_pass(opt_level=0, name="WidenHalves")
class WidenHalves:
    """Rewrite every matmul and sum of float16 or bfloat16, and all else that bfloat16 computes."""

    def __init__(self, native: bool = False) -> None:
        self.native = native

    def transform_module(self, mod: tvm.IRModule, _ctx: Any) -> tvm.IRModule:
        return rewrite(mod, _Rewriter(mod, self.native))


@mutator
class _Rewriter(PyExprMutator):
    def __init__(self, mod: tvm.IRModule, native: bool) -> None:
        super().__init__(mod)
        self.native = native

    def visit_call_(self, call: relax.Call) -> relax.Expr:
        call = self.visit_expr_post_order(call)
        name = getattr(call.op, "name", "")
        if name == "relax.matmul":
            return self._matmul(call)
        if self.native and name in CONVOLUTIONS and all(map(_is_brain, call.args)):
            return self._convolution(call)
        if name in SUMS and _is_half(call.args[0]):
            return self._widened(call)
        computes = name.startswith("relax.") and name not in MOVES and "call" not in name
        return self._widened(call) if computes and any(map(_is_brain, call.args)) else call

    def _matmul(self, call: relax.Call) -> relax.Expr:
        kind = str(call.args[0].ty.dtype)
        if kind not in HALVES or str(call.args[1].ty.dtype) != kind:
            return call
        wide = self.builder_.emit(relax.op.matmul(*call.args, out_dtype="float32"))
        return relax.op.astype(wide, kind)

    def _convolution(self, call: relax.Call) -> relax.Expr:
        kept = {key: getattr(call.attrs, key) for key in KEPT}
        wide = CONVOLUTIONS[call.op.name](*call.args, **kept, out_dtype="float32")
        return relax.op.astype(self.builder_.emit(wide), "bfloat16")

    def _widened(self, call: relax.Call) -> relax.Expr:
        emit = self.builder_.emit
        args = [self._wide(x) if _is_half(x) else x for x in call.args]
        wide = emit(relax.Call(call.op, args, call.attrs))
        if isinstance(wide.ty, relax.TupleType):
            fields = [emit(relax.TupleGetItem(wide, k)) for k in range(len(wide.ty.fields))]
            return relax.Tuple(list(map(self._narrowed, fields, call.ty.fields)))
        return self._narrowed(wide, call.ty)

    def _wide(self, x: relax.Expr) -> relax.Expr:
        """`x` in float32; where it was rounded from float32, without a bfloat16 in between."""
        if not _is_brain(x):
            return self.builder_.emit(relax.op.astype(x, "float32"))
        made = x
        while isinstance(made, relax.Var):  # a result may have several names
            made = self.lookup_binding(made)
        if getattr(getattr(made, "op", None), "name", "") == "relax.astype" and not self.native:
            before = made.args[0]
            if str(before.ty.dtype) == "float32":
                return self.builder_.emit(self.builder_.call_te(rounded, before))
        return self.builder_.emit(relax.op.astype(x, "float32"))

    def _narrowed(self, wide: relax.Expr, wanted: relax.TensorType) -> relax.Expr:
        same = str(wide.ty.dtype) == str(wanted.dtype)
        return wide if same else relax.op.astype(wide, str(wanted.dtype))


def _is_half(x: relax.Expr) -> bool:
    return isinstance(x.ty, relax.TensorType) and str(x.ty.dtype) in HALVES


def _is_brain(x: relax.Expr) -> bool:
    return _is_half(x) and str(x.ty.dtype) == "bfloat16"
