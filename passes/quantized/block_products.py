"""Products with weights of a few bits in blocks: the weight stays packed, its reader unpacks it.

    x @ real        with real[k, n] as block_weight.py has it, computed where it is read

becomes one kernel of two blocks, before constants are folded. Its schedule keeps `real` out of
memory (schedules/cpu/blocks.py).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import tvm
from tvm import relax, te, tirx
from tvm.relax.expr_functor import PyExprMutator, mutator

from ..constants import Lookup, constant
from ..rewrite import rewrite
from .block_weight import Packed, packed
from .operand import bound, called, value_of


@tvm.transform.module_pass(opt_level=1, name="BlockProducts")
class BlockProducts:
    """Keep the weights of products packed that have few bits."""

    def transform_module(self, mod: tvm.IRModule, _ctx: Any) -> tvm.IRModule:
        return rewrite(mod, _Rewriter(mod))


@mutator
class _Rewriter(PyExprMutator):
    def visit_call_(self, call: relax.Call) -> relax.Expr:
        call = self.visit_expr_post_order(call)
        if not called(call, "matmul") or str(call.ty.dtype) != "float32":
            return call
        x, weight = call.args[0], self._weight(call.args[1])
        if weight is None or x.ty.ndim < 2:
            return call
        missing = len(weight.words) * weight.blocks.in_word - int(x.ty.shape[-1])
        if missing:
            widths = [0, 0] * (x.ty.ndim - 1) + [0, missing]
            x = self.builder_.emit(relax.op.nn.pad(x, widths, "constant", 0.0))
        return self.builder_.call_te(
            lambda *tensors: _product(weight, *tensors), x, *map(constant, weight.arrays),
            primfunc_name_hint=f"matmul_{weight.blocks.bits}_bits",
        )  # fmt: skip

    def _weight(self, weight: relax.Expr) -> Packed | None:
        """``(bits - zero) * scale`` of constants in blocks, reshaped, cut, turned, as [k, n]."""
        expr = bound(weight, self.lookup_binding)
        turned = called(expr, "permute_dims") and expr.ty.ndim == 2 and _turns(expr)
        axis = 1 if turned else 0
        if turned:
            expr = bound(expr.args[0], self.lookup_binding)
        cut = expr
        if called(cut, "strided_slice") and _keeps_first(cut, axis, self.lookup_binding):
            expr = bound(cut.args[0], self.lookup_binding)
        product = bound(expr.args[0], self.lookup_binding) if called(expr, "reshape") else expr
        if not called(product, "multiply") or product.ty.ndim != 3 or expr.ty.ndim != 2:
            return None
        dims = [int(n) for n in product.ty.shape]
        joined = [*dims[:axis], dims[axis] * dims[axis + 1], *dims[axis + 2 :]]
        arrays = self._arrays(product)
        if arrays is None or [int(n) for n in expr.ty.shape] != joined:
            return None
        if turned:
            arrays = tuple(array.transpose(1, 2, 0) for array in arrays)
        whole, *parameters = arrays
        one_a_block = (len(whole), 1, whole.shape[2])
        if whole.shape[1] <= joined[axis] - int(cut.ty.shape[axis]):
            return None
        if any(array.shape != one_a_block for array in parameters):
            return None
        return packed(whole, *(array[:, 0] for array in parameters))

    def _arrays(self, product: relax.Call) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
        """Bits, zero points and scales of three dims each, of ``float(bits - zero) * scale``."""
        scale = value_of(product.args[1], self.lookup_binding)
        step = bound(product.args[0], self.lookup_binding)
        step = bound(step.args[0], self.lookup_binding) if called(step, "astype") else step
        if scale is None or not called(step, "subtract"):
            return None
        bits, zero = (value_of(arg, self.lookup_binding) for arg in step.args)
        if bits is None or zero is None or list(bits.shape) != [int(n) for n in product.ty.shape]:
            return None
        if scale.ndim != 3 or zero.shape not in ((), scale.shape):
            return None
        return bits, np.broadcast_to(zero, scale.shape), scale


def _turns(turn: relax.Call) -> bool:
    axes = turn.attrs.axes
    return axes is None or [int(axis) for axis in axes] == [1, 0]


def _keeps_first(cut: relax.Call, axis: int, lookup: Lookup) -> bool:
    """Whether `cut` takes the first elements along one axis, one after another."""
    axes, begin, _, *steps = (_numbers(bound(arg, lookup)) for arg in cut.args[1:])
    return axes == [axis] and begin == [0] and steps in ([], [[1]])


def _numbers(values: relax.Expr) -> list[int] | None:
    fields = [getattr(field, "value", field) for field in getattr(values, "fields", ())]
    return [int(field) for field in fields]


def _product(weight: Packed, x: te.Tensor, *arrays: te.Tensor) -> te.Tensor:
    words, scale, *zeros = arrays
    zero = zeros[0] if zeros else weight.zero
    depth, columns = x.shape[-1], words.shape[1]
    real = te.compute(
        [depth, columns], lambda k, n: weight.blocks.real(words, scale, zero, k, n), "real"
    )
    k = te.reduce_axis((tirx.const(0, "int64"), depth), "k")

    def total(*at: Any) -> Any:
        return te.sum(x[(*at[:-1], k)] * real[k, at[-1]], axis=k)

    return te.compute([*x.shape[:-1], columns], total, "matmul")
