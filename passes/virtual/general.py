"""The rule for operators that have none: legalize the call and read the map off its TIR."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tvm
from tvm import relax, tirx

from .. import arange
from ..patterns import OPAQUE
from ..widen_halves import SUMS
from .fusible import FUSIBLE
from .prims import UnmappedError
from .rules import Operands, Result
from .tir_map import map_of

_COMPUTES: set[str] = set(SUMS)
"""Operators that compute, or whose legalization was seen to: looking costs milliseconds each, and
TVM makes no mean of more float16 than 65504."""


def general_rule(call: Any, operands: Operands, mod: tvm.IRModule) -> Result | None:
    """The result of a call that only copies elements; None for an operator that does more.

    `call` is an operator with a legalization, or a ``call_tir`` of a function in `mod` that is not
    opaque.
    """
    if not isinstance(call, relax.Call) or not isinstance(call.op, tvm.ir.Op):
        return None
    if call.op.name in FUSIBLE or call.op.name in _COMPUTES:
        return None
    found = kernel_of(call, mod) if call.op.name == "relax.call_tir" else _legalized(call)
    if found is None or int((found[0].attrs or {}).get("op_pattern", 0)) == OPAQUE:
        return None
    func, args, sizes = found
    inputs = [operands.tensor(arg) for arg in args]
    prims = operands.prims
    try:
        shapes = [prims.shape(ty) for ty in getattr(call.ty, "fields", [call.ty])]
    except UnmappedError:
        return None
    try:
        results = map_of(func, inputs, [prims.size(size) for size in sizes], shapes)
    except UnmappedError:
        if call.op.name != "relax.call_tir":
            _COMPUTES.add(call.op.name)
        return None
    return results[0] if len(results) == 1 else results


Kernel = tuple[tirx.PrimFunc, Sequence[relax.Expr], Sequence[Any]]
"""A function, the tensors it is called with, and its integer arguments."""


def kernel_of(call: relax.Call, mod: tvm.IRModule) -> Kernel:
    """What a ``call_tir`` calls."""
    args = list(call.args[1].fields)
    tensors = [arg for arg in args if isinstance(arg.ty, relax.TensorType)]
    return mod[call.args[0]], tensors, [arg for arg in args if arg not in tensors]


def _legalized(call: relax.Call) -> Kernel | None:
    """The kernel that the call becomes, on its own arguments."""
    if call.op.get_attr("FLegalize") is None:
        return None
    tensors = [arg for arg in _flat(call.args) if isinstance(arg.ty, relax.TensorType)]
    params = {arg: relax.Var(f"arg{k}", arg.ty) for k, arg in enumerate(dict.fromkeys(tensors))}
    builder = relax.BlockBuilder()
    with builder.function("main", list(params.values())):
        moved = [_replaced(arg, params) for arg in call.args]
        builder.emit_func_output(builder.emit(relax.Call(call.op, moved, call.attrs, call.ty_args)))
    mod = relax.transform.LegalizeOps(arange.LOWERINGS)(builder.get())
    mod = relax.transform.CanonicalizeBindings()(mod)
    calls = [binding.value for block in mod["main"].body.blocks for binding in block.bindings]
    kernels = [c for c in calls if isinstance(c, relax.Call) and c.op.name == "relax.call_tir"]
    if len(kernels) != 1:
        return None
    back = dict(zip(mod["main"].params, params))
    func, args, sizes = kernel_of(kernels[0], mod)
    return (func, [back[arg] for arg in args], sizes) if back.keys() >= set(args) else None


def _flat(args: Sequence[Any]) -> list[Any]:
    return [f for arg in args for f in (arg.fields if isinstance(arg, relax.Tuple) else [arg])]


def _replaced(arg: Any, params: dict[Any, relax.Var]) -> Any:
    if isinstance(arg, relax.Tuple):
        return relax.Tuple([_replaced(field, params) for field in arg.fields])
    return params.get(arg, arg)
