"""Products with weights of a few bits in blocks: the weight stays packed, its reader unpacks it.

    x @ real        with real[k, n] as block_weight.py has it, computed where it is read

becomes one kernel of two blocks, before constants are folded. Its schedule keeps `real` out of
memory (schedules/cpu/blocks.py, schedules/cuda/gemv_blocks.py). Halves are summed as float32, by a
weight that is rounded to their type.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import tvm
from tvm import relax, te
from tvm.relax.expr_functor import PyExprMutator, mutator
from tvm.tirx import IntImm

from ..constants import Lookup, constant
from ..rewrite import rewrite
from .block_weight import Packed, packed
from .operand import bound, called, value_of


@tvm.transform.module_pass(opt_level=1, name="BlockProducts")
class BlockProducts:
    """Keep the weights of products of such types packed that have few bits."""

    def __init__(self, dtypes: tuple[str, ...]) -> None:
        self.dtypes = dtypes

    def transform_module(self, mod: tvm.IRModule, _ctx: Any) -> tvm.IRModule:
        return rewrite(mod, _Rewriter(mod, self.dtypes))


@mutator
class _Rewriter(PyExprMutator):
    def __init__(self, mod: tvm.IRModule, dtypes: tuple[str, ...]) -> None:
        super().__init__(mod)
        self.dtypes = dtypes

    def visit_call_(self, call: relax.Call) -> relax.Expr:
        call = self.visit_expr_post_order(call)
        if not called(call, "matmul") or str(call.ty.dtype) not in self.dtypes:
            return call
        if str(call.args[0].ty.dtype) != str(call.ty.dtype):
            return call
        x, weight = call.args[0], self._weight(call.args[1])
        if weight is None or x.ty.ndim < 2 or not isinstance(x.ty.shape[-1], IntImm):
            return call
        missing = len(weight.words) * weight.blocks.in_word - int(x.ty.shape[-1])
        if missing:
            widths = [0, 0] * (x.ty.ndim - 1) + [0, missing]
            x = self.builder_.emit(relax.op.nn.pad(x, widths, "constant", 0.0))
        product = self.builder_.call_te(
            lambda *tensors: unpacking_product(weight, *tensors), x, *map(constant, weight.arrays),
            primfunc_name_hint=f"matmul_{weight.blocks.bits}_bits",
        )  # fmt: skip
        kind = str(call.ty.dtype)
        return product if kind == "float32" else relax.op.astype(self.builder_.emit(product), kind)

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
        arrays = self._arrays(product)
        if arrays is None:
            return None
        dims = arrays[0].shape
        joined = [*dims[:axis], dims[axis] * dims[axis + 1], *dims[axis + 2 :]]
        if [int(n) for n in expr.ty.shape] != joined:
            return None
        whole, zero, scale = (a.transpose(1, 2, 0) if turned else a for a in arrays)
        count, length, columns = whole.shape
        if not scale.shape == zero.shape == (count, 1, columns):
            return None
        if joined[axis] - int(cut.ty.shape[axis]) >= length:
            return None
        return packed(whole, zero[:, 0], scale[:, 0])

    def _arrays(self, product: relax.Call) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
        """Bits, zero points and scales of three dims each, of ``float(bits - zero) * scale``."""
        scale = value_of(product.args[1], self.lookup_binding)
        step = bound(product.args[0], self.lookup_binding)
        step = bound(step.args[0], self.lookup_binding) if called(step, "astype") else step
        if scale is None or not called(step, "subtract"):
            return None
        bits, zero = (value_of(arg, self.lookup_binding) for arg in step.args)
        if bits is None or zero is None or not bits.ndim == scale.ndim == 3:
            return None
        if zero.shape not in ((), scale.shape):
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
    fields = list(getattr(values, "fields", ()))
    known = all(isinstance(field, IntImm) for field in fields)
    return [int(field) for field in fields] if known else None


def unpacking_product(weight: Packed, x: te.Tensor, *arrays: te.Tensor) -> te.Tensor:
    """``x @ real`` in float32, with `arrays` those of the weight."""
    words, scale, *zeros = arrays
    zero = zeros[0] if zeros else weight.zero
    depth, columns = x.shape[-1], words.shape[1]

    def element(k: Any, n: Any) -> Any:
        return weight.blocks.real(words, scale, zero, k, n).astype(x.dtype)

    real = te.compute([depth, columns], element, "real")
    k = te.reduce_axis((0, depth), "k")

    def total(*at: Any) -> Any:
        factors = x[(*at[:-1], k)], real[k, at[-1]]
        return te.sum(factors[0].astype("float32") * factors[1].astype("float32"), axis=k)

    return te.compute([*x.shape[:-1], columns], total, "matmul")
