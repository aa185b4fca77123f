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
    dtype = str(call.ty.dtype)
    if str(call.args[0].ty.dtype) != "bool" or not dtype.startswith(("float", "bfloat")):
        return brain_floats.lower(builder, call)

    def cast(x: te.Tensor) -> te.Tensor:
        one, zero = tirx.const(1, dtype), tirx.const(0, dtype)
        return te.compute(x.shape, lambda *at: tirx.Select(x(*at), one, zero), name="cast")

    return builder.call_te(cast, call.args[0], primfunc_name_hint="cast")


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

            if str(x.dtype).startswith(("float", "bfloat")):
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
        if not str(node.a.ty).startswith(("float", "bfloat")):
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
