"""Constants without elements are allocated: TVM reads them from a library only if dim 0 is 0.

    y = const(shape=[1, 1, 0, 2])      becomes      y = alloc_tensor([1, 1, 0, 2])

``Tensor::Load`` (tvm/runtime/tensor.h) takes an array whose first dim is not 0 for one with data,
and that none could be read for a damaged file.
"""

from __future__ import annotations

from typing import Any

import tvm
from tvm import relax
from tvm.ir import GenericConst
from tvm.relax.expr_functor import PyExprMutator, mutator

from .rewrite import rewrite


@tvm.transform.module_pass(opt_level=0, name="AllocateEmptyConstants")
class AllocateEmptyConstants:
    """Rewrite the constants of every function, after ``CallTIRRewrite``."""

    def transform_module(self, mod: tvm.IRModule, _ctx: Any) -> tvm.IRModule:
        return rewrite(mod, _Rewriter(mod))


@mutator
class _Rewriter(PyExprMutator):
    def visit_generic_const_(self, constant: GenericConst) -> relax.Expr:
        shape = list(constant.value.shape) if isinstance(constant.value, tvm.runtime.Tensor) else []
        if 0 not in shape or shape[0] == 0:
            return constant
        return self.builder_.emit(
            relax.op.builtin.alloc_tensor(
                relax.ShapeExpr(shape), str(constant.ty.dtype), 0, "global"
            )
        )
