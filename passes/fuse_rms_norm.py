"""An RMS norm, written out by the exporters, as the operator that it is.

    x * rsqrt(mean(x * x, -1) + epsilon) * weight     becomes     rms_norm(x, weight, epsilon)
    x / sqrt(mean(x * x, -1) + epsilon) * weight

so that a row is read from memory once: FuseOps does not join what follows a reduction with it. An
inverse root may also be a power or a division of one, a square a power or a product.
"""

from __future__ import annotations

from typing import Any

import tvm
import tvm_ffi
from tvm import relax, tirx
from tvm.relax import op
from tvm.relax.expr_functor import PyExprMutator, mutator

from tvmext.frontends.reshape import reshape

from .constants import as_constant
from .rewrite import rewrite


@tvm.transform.module_pass(opt_level=1, name="FuseRmsNorm")
class FuseRmsNorm:
    """Replace every product with a weight that ends an RMS norm over the last axis."""

    def transform_module(self, mod: tvm.IRModule, _ctx: Any) -> tvm.IRModule:
        return relax.transform.DeadCodeElimination()(rewrite(mod, _Rewriter(mod)))


@mutator
class _Rewriter(PyExprMutator):
    def visit_call_(self, call: relax.Call) -> relax.Expr:
        call = self.visit_expr_post_order(call)
        for normalized, weight in self._products(call):
            found = self._normalized(normalized)
            if found is None:
                continue
            x, epsilon = found
            width = x.ty.shape[-1]
            flat = self._as_row(weight, width)
            if flat is not None and _same_type(x, call):
                return op.nn.rms_norm(x, flat, [-1], epsilon)
        return call

    def _normalized(self, expr: relax.Expr) -> tuple[relax.Expr, float] | None:
        """(x, epsilon) of ``x / sqrt(mean(x^2) + epsilon)``."""
        for x, inverse in self._products(expr):
            epsilon = self._of_root(self._inverted(inverse), x)
            if epsilon is not None:
                return x, epsilon
        quotient = self._call(expr, "divide")
        if quotient is None:
            return None
        epsilon = self._of_root(self._root(quotient.args[1]), quotient.args[0])
        return None if epsilon is None else (quotient.args[0], epsilon)

    def _inverted(self, expr: relax.Expr) -> relax.Expr | None:
        """s of ``1 / sqrt(s)``."""
        if (call := self._call(expr, "rsqrt")) is not None:
            return call.args[0]
        call = self._call(expr, "divide")
        if call is not None and self._number(call.args[0]) == 1:
            return self._root(call.args[1])
        return self._power(expr, -0.5)

    def _root(self, expr: relax.Expr) -> relax.Expr | None:
        """s of ``sqrt(s)``."""
        call = self._call(expr, "sqrt")
        return self._power(expr, 0.5) if call is None else call.args[0]

    def _power(self, expr: relax.Expr, exponent: float) -> relax.Expr | None:
        """s of ``s ** exponent``."""
        call = self._call(expr, "power")
        if call is None or self._number(call.args[1]) != exponent:
            return None
        return call.args[0]

    def _of_root(self, shifted: relax.Expr | None, x: relax.Expr) -> float | None:
        """epsilon if `shifted` is ``mean(x^2, -1) + epsilon``."""
        call = self._call(shifted, "add")
        if call is None:
            return None
        for mean, number in (call.args, call.args[::-1]):
            epsilon, mean = self._number(number), self._call(mean, "mean")
            if epsilon is None or mean is None or not mean.attrs.keepdims:
                continue
            rank, axes = len(x.ty.shape), [int(axis) for axis in mean.attrs.axis or []]
            if axes in ([-1], [rank - 1]) and rank > 1 and self._is_square(mean.args[0], x):
                return epsilon
        return None

    def _is_square(self, expr: relax.Expr, x: relax.Expr) -> bool:
        call = self._call(expr, "multiply")
        if call is not None:
            return bool(call.args[0].same_as(x) and call.args[1].same_as(x))
        call = self._call(expr, "square")
        base = self._power(expr, 2) if call is None else call.args[0]
        return base is not None and bool(base.same_as(x))

    def _as_row(self, weight: relax.Expr, width: Any) -> relax.Expr | None:
        """The weight with one dim, if it has no other that is not 1."""
        shape = list(getattr(weight.ty, "shape", None) or [])
        if not shape or not tvm_ffi.structural_equal(shape[-1], width):
            return None
        if any(not isinstance(dim, tirx.IntImm) or dim.value != 1 for dim in shape[:-1]):
            return None
        return weight if len(shape) == 1 else self.builder_.emit(reshape(weight, [width]))

    def _products(self, expr: relax.Expr) -> list[tuple[relax.Expr, relax.Expr]]:
        """The operands of a product in either order."""
        call = self._call(expr, "multiply")
        if call is None:
            return []
        a, b = call.args
        return [(a, b), (b, a)]

    def _call(self, expr: relax.Expr | None, name: str) -> relax.Call | None:
        if isinstance(expr, relax.Var):
            expr = self.lookup_binding(expr)
        is_call = isinstance(expr, relax.Call) and getattr(expr.op, "name", "") == f"relax.{name}"
        return expr if is_call else None

    def _number(self, expr: relax.Expr) -> float | None:
        value = as_constant(expr, self.lookup_binding)
        array = None if value is None else value.value.numpy()
        return float(array.item()) if array is not None and array.size == 1 else None


def _same_type(x: relax.Expr, call: relax.Call) -> bool:
    return str(x.ty.dtype) == str(call.ty.dtype) and tvm_ffi.structural_equal(x.ty, call.ty)
