"""Products of quantized operands as products of bytes, exact in int32, and their requantization.

    sum_k (x - a) (w - b)  =  sum_k x w  -  a sum_k w  -  b sum_k (x - a)

    quantize(relu(x w s + bias), t, z)  =  clip(round((sum + bias / s) * (s / t)) + z)

The sums over a constant weight are constants; with the bias, which is quantized with the scale of
the product, they are one vector. Scale and rounding are those of ONNX Runtime's QLinearMatMul and
QLinearConv: one product in float32, halves to even.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, TypeGuard

import numpy as np
import tvm
from tvm import relax
from tvm.relax.analysis import get_var2val, udchain
from tvm.relax.expr_functor import PyExprMutator, mutator

from ..constants import Lookup, constant
from .operand import Quantized, Term, bound, called, limited, quantized, stored, value_of

CONVOLUTIONS = {
    f"relax.nn.conv{n}d": build
    for n, build in enumerate((relax.op.nn.conv1d, relax.op.nn.conv2d, relax.op.nn.conv3d), 1)
}


@tvm.transform.module_pass(opt_level=1, name="QuantizedProducts")
class QuantizedProducts:
    """Rewrite every matmul and convolution of two quantized operands, and what requantizes it."""

    def transform_module(self, mod: tvm.IRModule, _ctx: Any) -> tvm.IRModule:
        rewriter = _Rewriter(mod)
        for var, func in mod.functions_items():
            if isinstance(func, relax.Function):
                rewriter.chains = _find_chains(func)
                rewriter.builder_.update_func(var, rewriter.visit_expr(func))
        return rewriter.builder_.get()


@dataclass(frozen=True, eq=False)
class _Chain:
    """A product and the steps after it: ``requantize(clip(product + bias))``."""

    product: relax.Call
    left: Quantized
    right: Quantized
    bias: np.ndarray | None = None
    """In units of the product's scale, int32."""
    low: float = -np.inf
    high: float = np.inf
    scale: np.ndarray | None = None
    zero: int = 0
    dtype: str = ""

    @property
    def clipped(self) -> bool:
        return np.isfinite(self.low) or np.isfinite(self.high)

    @property
    def axis(self) -> int:
        """The axis of the output channels in the result."""
        return self.product.ty.ndim - 1 if called(self.product, "matmul") else 1

    @property
    def factor(self) -> np.ndarray | None:
        """What the integers are multiplied with to be real numbers."""
        if self.left.scale is None or self.right.scale is None:
            return None
        return (self.left.scale.reshape(-1) * self.right.scale.reshape(-1)).astype(np.float32)


def _find_chains(func: relax.Function) -> dict[relax.Expr, _Chain]:
    """Each chain by the expression that computes its end."""
    values = get_var2val(func)
    readers: dict[relax.Var, list[relax.Var]] = {}
    for block in func.body.blocks:
        if isinstance(block, relax.DataflowBlock):
            readers |= {var: list(users) for var, users in udchain(block).items()}
    found = {}
    for var, value in values.items():
        chain, end = _product(value, values.get), var
        if chain is None:
            continue
        while chain.factor is not None and not chain.dtype:
            users = readers.get(end, [])
            if len(users) != 1 or not isinstance(end, relax.DataflowVar):
                break
            longer = _extend(chain, end, values.get(users[0]), values.get)
            if longer is None:
                break
            chain, end = longer, users[0]
        found[values[end]] = chain
    return found


def _product(value: Any, lookup: Lookup) -> _Chain | None:
    name = getattr(getattr(value, "op", None), "name", "")
    if name != "relax.matmul" and name not in CONVOLUTIONS:
        return None
    if name in CONVOLUTIONS and str(value.attrs.data_layout)[:2] != "NC":
        return None
    left, right = (quantized(arg, lookup) for arg in value.args[:2])
    if left is None or right is None or min(left.rank, right.rank) < 2:
        return None
    if (left.scale is None) != (right.scale is None):
        return None
    fits = _fits_matmul if name == "relax.matmul" else _fits_convolution
    return _Chain(value, left, right) if fits(left, right) else None


def _fits_matmul(left: Quantized, right: Quantized) -> bool:
    """Whether parameters differ along rows and columns of the result only, scales by column."""
    one_scale = left.scale is None or left.scale.size == 1
    return one_scale and left.along(left.rank - 2) and right.along(right.rank - 1)


def _fits_convolution(left: Quantized, right: Quantized) -> bool:
    """Whether the zero points are known, one for the data and none for the weight."""
    if not isinstance(right.data, np.ndarray) or not isinstance(right.zero, np.ndarray):
        return False
    plain = not np.any(right.zero - (128 if right.dtype == "uint8" else 0))
    one = isinstance(left.zero, np.ndarray) and left.zero.size == 1
    one_scale = left.scale is None or left.scale.size == 1
    return plain and one and one_scale and right.along(0)


def _extend(chain: _Chain, end: relax.Var, user: Any, lookup: Lookup) -> _Chain | None:
    """The chain with `user` as its next step, if it is one of those that the equation has."""
    if not isinstance(user, relax.Call) or user.ty.ndim != end.ty.ndim:
        return None
    if called(user, "add") and chain.bias is None and not chain.clipped:
        left, right = user.args
        bias = _bias(chain, right if left.same_as(end) else left, lookup)
        return None if bias is None else replace(chain, bias=bias)
    if called(user, "nn.relu"):
        return replace(chain, low=max(chain.low, 0.0), high=max(chain.high, 0.0))
    if called(user, "clip"):
        low, high = (float(arg.value) for arg in user.args[1:])
        return None if chain.clipped else replace(chain, low=low, high=high)
    if called(user, "quantize") and user.args[0].same_as(end):
        scale, zero = (value_of(arg, lookup) for arg in user.args[1:])
        if scale is None or zero is None or scale.size != 1 or zero.size != 1:
            return None
        scale = scale.reshape(()).astype(np.float32)
        dtype = str(user.attrs.out_dtype)
        return replace(chain, scale=scale, zero=int(zero.reshape(())), dtype=dtype)
    return None


def _bias(chain: _Chain, term: relax.Expr, lookup: Lookup) -> np.ndarray | None:
    """A bias quantized with the scale of the product, as integers along the channels."""
    call = bound(term, lookup)
    if not called(call, "dequantize") or str(call.args[0].ty.dtype) != "int32":
        return None
    data, scale, zero = (value_of(arg, lookup) for arg in call.args)
    factor = chain.factor
    if data is None or scale is None or zero is None or np.any(zero) or factor is None:
        return None
    if not np.allclose(scale.reshape(-1), factor, rtol=1e-5, atol=0):
        return None
    shape = (1,) * (chain.product.ty.ndim - data.ndim) + data.shape
    others = [n for i, n in enumerate(shape) if i != chain.axis]
    return data.reshape(-1) if all(n == 1 for n in others) else None


@mutator
class _Rewriter(PyExprMutator):
    chains: dict[relax.Expr, _Chain]

    def visit_call_(self, call: relax.Call) -> relax.Expr:
        chain = self.chains.get(call)
        if chain is None:
            return self.visit_expr_post_order(call)
        left, right = self._visited(chain.left), self._visited(chain.right).signed(self.builder_)
        total = (self._matmul if called(chain.product, "matmul") else self._convolution)(
            chain, left, right
        )
        if chain.factor is None:
            return total
        factor = chain.factor if chain.scale is None else chain.factor / chain.scale
        real = self._emit(relax.op.astype(total, "float32"))
        real = self._emit(relax.op.multiply(real, self._channels(chain, factor)))
        if chain.dtype:
            return self._requantized(chain, real)
        return limited(self.builder_, real, chain.low, chain.high)

    def _emit(self, expr: relax.Expr) -> relax.Var:
        return self.builder_.emit(expr)

    def _visited(self, operand: Quantized) -> Quantized:
        """The operand in terms of the new function."""

        def visit(term: Term) -> Term:
            return term if isinstance(term, np.ndarray) else self.visit_expr(term)

        return replace(operand, data=visit(operand.data), zero=visit(operand.zero))

    def _channels(self, chain: _Chain, vector: np.ndarray) -> relax.Expr:
        """A constant along the channels of the result."""
        shape = [1] * chain.product.ty.ndim
        shape[chain.axis] = -1
        return constant(vector.reshape(shape) if vector.size > 1 else vector.reshape(()))

    def _matmul(self, chain: _Chain, x: Quantized, w: Quantized) -> relax.Expr:
        data, weight = _tensor(x.data), _tensor(w.data)
        total = self._emit(relax.op.matmul(data, weight, out_dtype="int32"))
        extra = np.zeros(1, np.int32) if chain.bias is None else chain.bias
        if isinstance(w.data, np.ndarray) and w.data.ndim == 2 and _is_one(x.zero):
            extra = extra - x.zero.reshape(()) * w.data.sum(0, dtype=np.int32)
        elif not _is_zero(x.zero):
            columns = relax.op.sum(self._wide(weight), weight.ty.ndim - 2, keepdims=True)
            total = self._less(total, self._emit(columns), _rows(x))
        if not _is_zero(w.zero):
            wide = self._wide(data)
            if not _is_zero(x.zero):
                wide = self._emit(relax.op.subtract(wide, _rows(x)))
            rows = relax.op.sum(wide, wide.ty.ndim - 1, keepdims=True)
            total = self._less(total, self._emit(rows), _tensor(w.zero))
        return self._plus(chain, total, extra)

    def _wide(self, data: relax.Expr) -> relax.Var:
        return self._emit(relax.op.astype(data, "int32"))

    def _less(self, total: relax.Expr, sums: relax.Expr, times: relax.Expr) -> relax.Var:
        """``total - sums * times``."""
        return self._emit(relax.op.subtract(total, self._emit(relax.op.multiply(sums, times))))

    def _plus(self, chain: _Chain, total: relax.Expr, extra: np.ndarray) -> relax.Expr:
        if not np.any(extra):
            return total
        return self._emit(relax.op.add(total, self._channels(chain, extra)))

    def _convolution(self, chain: _Chain, x: Quantized, w: Quantized) -> relax.Expr:
        call, attrs = chain.product, chain.product.attrs
        assert isinstance(w.data, np.ndarray) and isinstance(x.zero, np.ndarray)
        shift, padding = int(x.zero.reshape(())), [int(n) for n in attrs.padding]
        data = _tensor(x.data)
        if shift and any(padding):
            half = len(padding) // 2
            widths = [n for pair in zip(padding[:half], padding[half:]) for n in pair]
            data = self._emit(relax.op.nn.pad(data, (0, 0, 0, 0, *widths), pad_value=shift))
            padding = [0] * len(padding)
        total = CONVOLUTIONS[call.op.name](
            data,
            constant(w.data),
            strides=attrs.strides,
            padding=padding,
            dilation=attrs.dilation,
            groups=attrs.groups,
            data_layout=attrs.data_layout,
            kernel_layout=attrs.kernel_layout,
            out_dtype="int32",
        )
        taps = w.data.sum(tuple(range(1, w.data.ndim)), dtype=np.int32)
        extra = -shift * taps if chain.bias is None else chain.bias - shift * taps
        return self._plus(chain, self._emit(total), extra)

    def _requantized(self, chain: _Chain, real: relax.Expr) -> relax.Expr:
        assert chain.scale is not None
        ends = (float(np.rint(end / chain.scale)) + chain.zero for end in (chain.low, chain.high))
        return stored(self.builder_, real, chain.zero, chain.dtype, *ends)


def _tensor(term: Term) -> relax.Expr:
    return constant(term) if isinstance(term, np.ndarray) else term


def _is_one(term: Term) -> TypeGuard[np.ndarray]:
    """Whether `term` is one known number."""
    return isinstance(term, np.ndarray) and term.size == 1


def _is_zero(term: Term) -> bool:
    return isinstance(term, np.ndarray) and not np.any(term)


def _rows(x: Quantized) -> relax.Expr:
    """The zero points of `x` against its data."""
    if isinstance(x.zero, np.ndarray) and x.zero.size > 1:
        return constant(x.zero.reshape(-1, 1).astype(np.int32))
    if isinstance(x.zero, np.ndarray):
        return constant(x.zero.reshape(()).astype(np.int32))
    return x.zero
