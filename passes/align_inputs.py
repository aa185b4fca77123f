"""Kernels read tensors at whatever address `malloc` gives.

    kernel(x: Buffer(.., data_alignment=64))    becomes    kernel(x: Buffer(.., data_alignment=16))

Large arrays of NumPy begin 16 bytes into a page; kernels that load whole vectors at multiples of 64
would need a copy of such inputs, which takes longer than loads that cross lines. Loads that need no
alignment are as fast at aligned addresses. No kernel is left out, whoever calls it: TVM does not
check addresses, and a kernel that assumed more than it gets would fault.
"""

from __future__ import annotations

from typing import Any

import tvm
from tvm import relax, tirx
from tvm.ir import Var
from tvm_ffi import structural_map

ALIGNMENT = 16
"""Bytes: of what `malloc` gives on 64-bit systems (alignof(max_align_t))."""

ATTRIBUTE = "tvmext.input_alignment"
"""Attribute of main: the multiple in bytes at which its inputs have to begin, if not at 64."""

_FOREIGN = ("relax.call_", "relax.invoke_")
_KERNELS = ("relax.call_tir", "relax.call_tir_inplace")


@tvm.transform.module_pass(opt_level=0, name="AlignInputs")
class AlignInputs:
    """Let inputs of main begin at multiples of `ALIGNMENT`, if all that is called are kernels."""

    def transform_module(self, mod: tvm.IRModule, _ctx: Any) -> tvm.IRModule:
        if _calls_others(mod):
            return mod
        functions = {
            var: _relaxed(func) if isinstance(func, tirx.PrimFunc) else func
            for var, func in mod.functions_items()
        }
        main = mod.get_global_var("main")
        functions[main] = mod[main].with_attr(ATTRIBUTE, ALIGNMENT)
        return tvm.IRModule(functions, attrs=mod.attrs, global_infos=mod.global_infos)


def input_alignment(mod: tvm.IRModule) -> int:
    """The multiple in bytes at which the inputs of main have to begin: TVM's own is 64."""
    return int((mod["main"].attrs or {}).get(ATTRIBUTE, 64))


def _calls_others(mod: tvm.IRModule) -> bool:
    """Whether something is called that is no kernel of the module, and may rely on 64 bytes."""
    names: list[str] = []

    def visit(expr: relax.Expr) -> None:
        if isinstance(expr, relax.Call):
            foreign = isinstance(expr.op, relax.ExternFunc)
            names.append("relax.call_foreign" if foreign else getattr(expr.op, "name", ""))

    for _, func in mod.functions_items():
        if isinstance(func, relax.Function):
            relax.analysis.post_order_visit(func, visit)
    return any(name.startswith(_FOREIGN) and name not in _KERNELS for name in names)


def _relaxed(func: tirx.PrimFunc) -> tirx.PrimFunc:
    """The function with parameters that may begin at any multiple of `ALIGNMENT`."""
    changed = {old: _buffer(old) for old in func.params if tirx.is_buffer_var(old)}
    params = [changed.get(param, param) for param in func.params]
    body = structural_map(func.body, (Var, lambda var: changed.get(var, var)))
    return tirx.PrimFunc(params, body, func.ret_type, func.attrs)


def _buffer(old: Var) -> Var:
    """The same buffer, at any multiple of `ALIGNMENT`."""
    return tirx.decl_buffer(
        old.ty.shape,
        old.ty.dtype,
        old.name,
        strides=old.ty.strides,
        elem_offset=old.ty.elem_offset,
        scope=old.ty.storage_scope,
        data_alignment=ALIGNMENT,
        offset_factor=old.ty.offset_factor,
    )
