"""Products of 8-bit floats: matrix instructions take them as they lie in memory, scales come after.

    sum_k (float(x[m, k]) s) (float(w[k, n]) t[n])  =  (sum_k x[m, k] w[k, n]) s t[n]

Only where the machine has such instructions; elsewhere factors are looked up and multiplied as they
were. Halves between are left out: products are exact and summed in float32.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import tvm
import tvm_ffi
from tvm import relax, te, tirx
from tvm.relax.expr_functor import PyExprMutator, mutator
from tvm.tirx import IntImm

from tvmext.frontends.storage import numpy_dtype, values

from ..constants import Lookup, as_constant, constant
from ..rewrite import rewrite
from .operand import bound, called, value_of

KINDS = ("float8_e4m3fn", "float8_e5m2")
Multiplies = Callable[[str], bool]
"""Whether there are matrix instructions for a type."""


@tvm.transform.module_pass(opt_level=1, name="Float8Products")
class Float8Products:
    """Multiply what both are looked up among the values of 8-bit floats."""

    def __init__(self, multiplies: Multiplies) -> None:
        self.multiplies = cache(multiplies)

    def transform_module(self, mod: tvm.IRModule, _ctx: Any) -> tvm.IRModule:
        return rewrite(mod, _Rewriter(mod, self.multiplies))


def square_product(kind: str) -> tirx.PrimFunc:
    """A product of matrices of the type, to ask a machine about."""
    a, b = (te.placeholder((256, 256), kind, name) for name in "ab")
    k = te.reduce_axis((0, 256), "k")

    def total(i: Any, j: Any) -> Any:
        return te.sum(a[i, k].astype("float32") * b[k, j].astype("float32"), axis=k)

    return te.create_prim_func([a, b, te.compute((256, 256), total, "product")])


@dataclass(frozen=True, eq=False)
class _Factor:
    """``values of kind[data] * scale``; with `turned`, of both the two dims swapped."""

    data: relax.Expr
    kind: str
    scale: relax.Expr | None
    turned: bool


@mutator
class _Rewriter(PyExprMutator):
    def __init__(self, mod: tvm.IRModule, multiplies: Multiplies) -> None:
        super().__init__(mod)
        self.multiplies = multiplies

    def visit_call_(self, call: relax.Call) -> relax.Expr:
        call = self.visit_expr_post_order(call)
        if not called(call, "matmul") or min(arg.ty.ndim for arg in call.args) < 2:
            return call
        left, right = (_factor(arg, self.lookup_binding) for arg in call.args)
        if left is None or right is None or left.turned:
            return call
        if not (_apart(left, -1) and _apart(right, -1 if right.turned else -2)):
            return call
        if not (self.multiplies(left.kind) and self.multiplies(right.kind)):
            return call
        emit = self.builder_.emit
        result = emit(relax.op.matmul(self._data(left), self._data(right), out_dtype="float32"))
        for one in (left, right):
            if one.scale is not None:
                scale = emit(relax.op.permute_dims(one.scale)) if one.turned else one.scale
                result = emit(relax.op.multiply(result, scale))
        kind = str(call.ty.dtype)
        return result if kind == "float32" else relax.op.astype(result, kind)

    def _data(self, factor: _Factor) -> relax.Expr:
        """The bytes as floats of 8 bits."""
        known = value_of(factor.data, self.lookup_binding)
        if known is not None:
            whole = known.view(numpy_dtype(factor.kind))
            return constant(whole.T if factor.turned else whole)

        def meant(x: te.Tensor) -> te.Tensor:
            def element(*at: Any) -> Any:
                return tirx.reinterpret(factor.kind, x(*at))

            return te.compute(x.shape, element, "floats")

        floats = self.builder_.emit_te(meant, factor.data, primfunc_name_hint=factor.kind)
        return self.builder_.emit(relax.op.permute_dims(floats)) if factor.turned else floats


def _factor(expr: relax.Expr, lookup: Lookup) -> _Factor | None:
    """What is looked up, perhaps scaled, rounded to halves and turned."""
    expr = bound(expr, lookup)
    turned = called(expr, "permute_dims") and expr.ty.ndim == 2
    if turned:
        axes = expr.attrs.axes
        if axes is not None and [int(axis) for axis in axes] != [1, 0]:
            return None
        expr = bound(expr.args[0], lookup)
    while called(expr, "astype") or _same_shape(expr):
        expr = bound(expr.args[0], lookup)
    scale = None
    if called(expr, "multiply"):
        scale = expr.args[1]
        if str(scale.ty.dtype) != "float32":
            return None
        expr = bound(expr.args[0], lookup)
    if not called(expr, "take"):
        return None
    table, index = as_constant(expr.args[0], lookup), bound(expr.args[1], lookup)
    if table is None or not called(index, "astype"):
        return None
    kind = _kind(table.value.numpy())
    data = index.args[0]
    if kind is None or str(data.ty.dtype) != "uint8":
        return None
    return _Factor(data, kind, scale, turned)


def _same_shape(expr: relax.Expr) -> bool:
    return called(expr, "reshape") and tvm_ffi.structural_equal(
        expr.args[0].ty.shape, expr.ty.shape
    )


def _kind(table: np.ndarray) -> str | None:
    """The type whose 256 values these are."""
    if table.shape != (256,):
        return None
    alike = (np.array_equal(table, values(k, table.dtype.name), equal_nan=True) for k in KINDS)
    return next((kind for kind, same in zip(KINDS, alike) if same), None)


def _apart(factor: _Factor, axis: int) -> bool:
    """Whether the scale is the same all along an axis."""
    if factor.scale is None:
        return True
    dims = [int(n) if isinstance(n, IntImm) else 0 for n in factor.scale.ty.shape]
    return not dims or (len(dims) == factor.data.ty.ndim and dims[axis] == 1)
