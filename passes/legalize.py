"""Lowerings of Relax operators to TIR in place of TVM's, which differ from it in corner cases.

TVM's maximum and minimum compare, and a comparison with NaN is false: ``max(x, y)`` is y where
either is NaN, so that a NaN in the network may come out as a number. Here NaN stays NaN:

    max(x, c)  ->  max(c, x)                               for a constant c
    max(x, y)  ->  select(isnan(x), x, max(x, y))
    relu(x)    ->  max(0, x)

TVM's max and min over axes start from the largest finite number, its argmax and argmin from that
and the index -1, and both come out where nothing beats them: of an empty set, of infinities alone.
They start from infinity and from an index above all others here. A NaN resets TVM's argmax; here it
is passed over, unless it comes first, as in ONNX Runtime:

    argmax(x)  ->  argmax(select(x <= inf, x, inf if first else -inf))

A truth value becomes a float by a choice: ``float(x)  ->  select(x, 1, 0)``.

TVM's simplifier takes floats for numbers of which one is less, or more, or which are equal. With
NaN ``not x < y`` is not ``y <= x``, and NaN is not equal to itself; nor does TVM's code for "not
equal", or for what is true, say that it differs from anything:

    not x    ->  select(x, false, true)
    x != y   ->  not x == y                     x == x  ->  x <= inf, of floats
    bool(x)  ->  not x == 0

`relax.shape_to_tensor` becomes what TVM makes of it, marked as opaque to fusion: FuseTIR crashes on
a group in which a dim is both an argument and the size of another member.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import tvm_ffi
from tvm import relax, s_tir, te, tirx, topi
from tvm.ir import Expr, Op
from tvm.tirx import PrimFunc

from . import (
    arange,
    brain_floats,
    constant_division,
    indexing,
    norms,
    resize,
    transposed_convolution,
)
from .patterns import OPAQUE
from .virtual.emit import VIEW

Lowering = Callable[[relax.BlockBuilder, relax.Call], relax.Expr]


def _relu(builder: relax.BlockBuilder, call: relax.Call) -> relax.Expr:
    def relu(x: te.Tensor) -> te.Tensor:
        zero = tirx.const(0, x.dtype)
        return te.compute(x.shape, lambda *index: te.max(zero, x(*index)), name="relu")

    return builder.call_te(relu, call.args[0], primfunc_name_hint="relu")


def _astype(builder: relax.BlockBuilder, call: relax.Call) -> relax.Expr:
    """TVM's simplifier fails on the cast of a vector of truth values."""
    dtype, source = str(call.ty.dtype), str(call.args[0].ty.dtype)
    if dtype == "bool" and _is_float(source):

        def true(x: te.Tensor) -> te.Tensor:
            zero = tirx.const(0, source)
            return te.compute(x.shape, lambda *at: _opposite(x(*at).equal(zero)), name="cast")

        return builder.call_te(true, call.args[0], primfunc_name_hint="cast")
    if source != "bool" or not _is_float(dtype):
        return brain_floats.lower(builder, call)

    def cast(x: te.Tensor) -> te.Tensor:
        one, zero = tirx.const(1, dtype), tirx.const(0, dtype)
        return te.compute(x.shape, lambda *at: tirx.Select(x(*at), one, zero), name="cast")

    return builder.call_te(cast, call.args[0], primfunc_name_hint="cast")


def _not(builder: relax.BlockBuilder, call: relax.Call) -> relax.Expr:
    def other(x: te.Tensor) -> te.Tensor:
        return te.compute(x.shape, lambda *at: _opposite(x(*at).astype("bool")), name="logical_not")

    return builder.call_te(other, call.args[0], primfunc_name_hint="logical_not")


def _opposite(truth: Expr) -> Expr:
    return tirx.Select(truth, tirx.const(False, "bool"), tirx.const(True, "bool"))


def _equal(builder: relax.BlockBuilder, call: relax.Call) -> relax.Expr:
    """Of floats: one is equal to itself unless it is NaN."""
    x, y = call.args
    if not _is_float(str(x.ty.dtype)) or not x.same_as(y):
        return Op.get("relax.equal").get_attr("FLegalize")(builder, call)

    def number(x: te.Tensor) -> te.Tensor:
        limit = tirx.const(math.inf, x.dtype)
        return te.compute(x.shape, lambda *at: x(*at) <= limit, name="equal")

    return builder.call_te(number, x, primfunc_name_hint="equal")


def _not_equal(builder: relax.BlockBuilder, call: relax.Call) -> relax.Expr:
    """Of floats: the opposite of what `_equal` says."""
    if not _is_float(str(call.args[0].ty.dtype)):
        return Op.get("relax.not_equal").get_attr("FLegalize")(builder, call)
    same = builder.emit(builder.normalize(_equal(builder, relax.op.equal(*call.args))))
    return _not(builder, relax.op.logical_not(same))


def _is_float(dtype: str) -> bool:
    return dtype.startswith(("float", "bfloat"))


def _rewritten(original: Lowering, rewrite: Callable[[PrimFunc], PrimFunc]) -> Lowering:
    """A lowering, its function rewritten."""

    def lower(builder: relax.BlockBuilder, call: relax.Call) -> relax.Expr:
        lowered = original(builder, call)
        if getattr(lowered.op, "name", "") == "relax.call_tir":
            function = lowered.args[0]
            builder.update_func(function, rewrite(builder.get()[function]))
        return lowered

    return lower


def _index_of(name: str, build: Callable[..., te.Tensor], best: float) -> Lowering:
    """argmax or argmin of floats, where NaN becomes what never wins, or what wins as the first."""

    def lower(builder: relax.BlockBuilder, call: relax.Call) -> relax.Expr:
        axis, keepdims = call.attrs.axis, bool(call.attrs.keepdims)

        def found(x: te.Tensor) -> te.Tensor:
            reduced = range(x.ndim) if axis is None else [axis % x.ndim]

            def element(*at: Expr) -> Expr:
                value, edge = x(*at), tirx.const(best, x.dtype)
                first = tirx.all(*(at[d].equal(0) for d in reduced))
                instead = tirx.Select(first, edge, -edge)
                return tirx.Select(value <= tirx.const(math.inf, x.dtype), value, instead)

            if _is_float(str(x.dtype)):
                x = te.compute(x.shape, element, name="without_nan")
            return build(x, axis, keepdims)

        return builder.call_te(found, call.args[0], primfunc_name_hint=name)

    return lower


def _view(function: PrimFunc) -> PrimFunc:
    return function.with_attr(VIEW, 1)


def _opaque(function: PrimFunc) -> PrimFunc:
    return function.with_attr("op_pattern", OPAQUE)


def _keeping_nan(function: PrimFunc) -> PrimFunc:
    def keep(node: tirx.Max | tirx.Min) -> Any:
        if not _is_float(str(node.a.ty)):
            return node
        if isinstance(node.b, tirx.FloatImm):
            return type(node)(node.b, node.a)
        return tirx.Select(tirx.isnan(node.a), node.a, node)

    body = tvm_ffi.structural_map(function.body, ((tirx.Max, tirx.Min), keep))
    return _with_body(function, body)


def _starting_from_infinity(function: PrimFunc) -> PrimFunc:
    def begin(block: s_tir.SBlock) -> s_tir.SBlock:
        if block.init is None:
            return block
        init = tvm_ffi.structural_map(block.init, (tirx.BufferStore, _begin))
        return s_tir.SBlock(
            block.iter_vars,
            block.reads,
            block.writes,
            block.name_hint,
            block.body,
            init,
            block.alloc_buffers,
            block.match_buffers,
            block.annotations,
        )

    return _with_body(function, tvm_ffi.structural_map(function.body, (s_tir.SBlock, begin)))


def _begin(store: tirx.BufferStore) -> tirx.BufferStore:
    """A value becomes the infinity of its sign, the index -1 the largest."""
    value, dtype = store.value, store.buffer.dtype
    if isinstance(value, tirx.FloatImm):
        value = tirx.const(math.copysign(math.inf, value.value), dtype)
    elif isinstance(value, tirx.IntImm) and value.value == -1:
        value = tirx.max_value(dtype)
    return tirx.BufferStore(store.buffer, value, store.indices)


def _with_body(function: PrimFunc, body: tirx.Stmt) -> PrimFunc:
    return PrimFunc(function.params, body, function.ret_type, function.attrs)


def _lowerings(rewrite: Callable[[PrimFunc], PrimFunc], *names: str) -> dict[str, Lowering]:
    """TVM's lowerings of operators, their functions rewritten."""
    return {name: _rewritten(Op.get(name).get_attr("FLegalize"), rewrite) for name in names}


LEGALIZE: dict[str, Lowering] = {
    **arange.LOWERINGS,
    **constant_division.LOWERINGS,
    **indexing.LOWERINGS,
    **norms.LOWERINGS,
    brain_floats.NAME: _astype,
    "relax.equal": _equal,
    "relax.logical_not": _not,
    "relax.not_equal": _not_equal,
    "relax.nn.relu": _relu,
    **resize.LOWERINGS,
    **transposed_convolution.LOWERINGS,
    **_lowerings(_opaque, "relax.shape_to_tensor"),
    **_lowerings(_keeping_nan, "relax.maximum", "relax.minimum", "relax.clip"),
    **_lowerings(_starting_from_infinity, "relax.max", "relax.min"),
    "relax.argmax": _rewritten(_index_of("argmax", topi.argmax, math.inf), _starting_from_infinity),
    "relax.argmin": _rewritten(
        _index_of("argmin", topi.argmin, -math.inf), _starting_from_infinity
    ),
}
"""{operator: lowering}, the `customize_legalize_map` of TVM's pass LegalizeOps."""

VIEWS = _lowerings(_view, "relax.reshape", "relax.expand_dims", "relax.squeeze", "relax.flatten")
"""Reshapes as what TVM makes of them, marked as views: alone after fusion they are no kernels."""
