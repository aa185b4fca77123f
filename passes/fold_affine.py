"""Fold per-channel scales and shifts into the convolution or matmul before them.

    (op(x, W) + a) * s + b   =   op(x, s W) + (s a + b)      a, s, b constant along one axis

A chain of such steps is followed from the operator on as long as each result has one reader. Batch
norms reach this pass as a scale and a shift (DecomposeBatchNorm).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import tvm
from tvm import relax
from tvm.relax.analysis import get_var2val, udchain
from tvm.relax.expr_functor import PyExprMutator, mutator

from .constants import constant, constant_values


@tvm.transform.module_pass(opt_level=1, name="FoldAffine")
class FoldAffine:
    """Fold the chains of every Relax function."""

    def transform_module(self, mod: tvm.IRModule, _ctx: Any) -> tvm.IRModule:
        rewriter = _Rewriter(mod)
        for var, func in mod.functions_items():
            if isinstance(func, relax.Function):
                rewriter.chains = _find_chains(func)
                rewriter.builder_.update_func(var, rewriter.visit_expr(func))
        return rewriter.builder_.get()


@dataclass(frozen=True)
class _Chain:
    """``scale * op(x, W) + shift``, both arrays of shape (1,) or (channels,)."""

    op: relax.Call
    weight: np.ndarray
    scale: np.ndarray
    shift: np.ndarray
    steps: int = 0

    @property
    def folds(self) -> bool:
        """Whether folding saves anything: a lone addition is what it would become."""
        return self.steps > 1 or bool(np.any(self.scale != 1))


def _find_chains(func: relax.Function) -> dict[relax.Expr, _Chain]:
    """Each chain worth folding, by the expression that computes its end."""
    values = get_var2val(func)
    readers: dict[relax.Var, list[relax.Var]] = {}
    for block in func.body.blocks:
        if isinstance(block, relax.DataflowBlock):
            readers |= {var: list(users) for var, users in udchain(block).items()}
    found = {}
    for var, value in values.items():
        weight = _constant_weight(value, values)
        if weight is None:
            continue
        one = np.ones(1, weight.dtype)
        chain, end = _Chain(value, weight, one, one * 0), var
        while len(users := readers.get(end, [])) == 1 and isinstance(end, relax.DataflowVar):
            longer = _extend(chain, end, values.get(users[0]), values)
            if longer is None:
                break
            chain, end = longer, users[0]
        if chain.folds:
            found[values[end]] = chain
    return found


def _extend(chain: _Chain, end: relax.Var, user: Any, values: dict) -> _Chain | None:
    """The chain with `user` as its next step, if `user` is affine in `end` along the channels."""
    if not isinstance(user, relax.Call) or len(user.args) != 2:
        return None
    left, right = user.args
    name = getattr(user.op, "name", "")
    commutes = name in ("relax.add", "relax.multiply")
    if not left.same_as(end) and not (commutes and right.same_as(end)):
        return None
    operand = constant_values([right if left.same_as(end) else left], values.get)
    vector = None if operand is None else _per_channel(operand[0], end.ty.ndim, _out_axis(chain.op))
    if vector is None or user.ty.ndim != end.ty.ndim:
        return None
    scale, shift = chain.scale, chain.shift
    if name == "relax.add":
        shift = shift + vector
    elif name == "relax.subtract":
        shift = shift - vector
    elif name == "relax.multiply":
        scale, shift = scale * vector, shift * vector
    elif name == "relax.divide":
        scale, shift = scale / vector, shift / vector
    else:
        return None
    return _Chain(chain.op, chain.weight, scale, shift, chain.steps + 1)


def _per_channel(value: np.ndarray, rank: int, axis: int) -> np.ndarray | None:
    """`value`, broadcast against a tensor of `rank`, as a vector along `axis`, if it is one."""
    if value.ndim > rank:
        return None
    shape = (1,) * (rank - value.ndim) + value.shape
    others = [size for i, size in enumerate(shape) if i != axis]
    return value.reshape(-1) if all(size == 1 for size in others) else None


def _constant_weight(value: Any, values: dict) -> np.ndarray | None:
    """The weights of a floating-point convolution or matmul, if they are constants."""
    name = getattr(getattr(value, "op", None), "name", "")
    if name not in ("relax.nn.conv1d", "relax.nn.conv2d", "relax.nn.conv3d", "relax.matmul"):
        return None
    if name == "relax.matmul" and value.args[1].ty.ndim != 2:
        return None
    weight = constant_values([value.args[1]], values.get)
    # A float of 8 bits has no room for a scale.
    folds = weight and weight[0].dtype.kind == "f" and weight[0].dtype.itemsize > 1
    return weight[0] if weight and folds else None


def _out_axis(op: relax.Call) -> int:
    """The axis of the channels in the result of a convolution or matmul."""
    if op.op.name == "relax.matmul":
        return op.ty.ndim - 1
    return str(op.attrs.out_layout or op.attrs.data_layout).index("C")


def _scaled_weight(chain: _Chain) -> np.ndarray:
    axis = 1 if chain.op.op.name == "relax.matmul" else chain.op.attrs.kernel_layout.index("O")
    shape = [1] * chain.weight.ndim
    shape[axis] = -1
    return chain.weight * chain.scale.reshape(shape)


@mutator
class _Rewriter(PyExprMutator):
    chains: dict[relax.Expr, _Chain]

    def visit_call_(self, call: relax.Call) -> relax.Expr:
        chain = self.chains.get(call)
        if chain is None:
            return self.visit_expr_post_order(call)
        x = self.visit_expr(chain.op.args[0])
        scaled = relax.Call(chain.op.op, [x, constant(_scaled_weight(chain))], chain.op.attrs)
        result = self.builder_.emit(scaled)
        if not np.any(chain.shift):
            return result
        shape = [1] * result.ty.ndim
        shape[_out_axis(chain.op)] = -1
        return relax.op.add(result, constant(chain.shift.reshape(shape)))
