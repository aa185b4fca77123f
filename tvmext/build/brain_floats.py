"""Constants of bfloat16, and vectors of equal ones, on CPUs.

    y[lanes] = Broadcast(c)   becomes   y[lanes] = reinterpret(bfloat16, Broadcast(bits(c)))
    reinterpret(uint16, 1.5)  becomes   bits(1.5)

TVM stores bfloat16 as uint16 there: its last pass on kernels rewrites loads, choices and casts, but
leaves a `Broadcast` the type that it had, which the store refuses. Which values are the same in all
lanes is known only after all other passes, so this stands between them and the last. Constants are
made float32 by one of those, and LLVM crashes over their 16 bits, so that these stand before it.
"""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import tvm
import tvm_ffi
from tvm import tirx
from tvm.ir import Call, Expr, Op

from tvmext.passes.rewrite import rewrite_bodies

from . import registers

PIPELINE = "tvmext.llvm"
"""The name of TVM's pipeline for kernels with ours in it, once it is registered."""

_LAST = "tirx.BF16StorageLegalize"
_REINTERPRET = Op.get("tirx.reinterpret")


def register() -> None:
    """Make the pipeline known to TVM by its name."""
    tirx.register_tir_pipeline(PIPELINE, _stages)


def _stages() -> tuple[tvm.transform.Pass, Any, Any]:
    all_but_last, host, device = tirx.get_tir_pipeline("s_tir")

    @tvm.transform.module_pass(opt_level=0, name="Kernels")
    def kernels(mod: tvm.IRModule, _ctx: tvm.transform.PassContext) -> tvm.IRModule:
        with _without(_LAST):
            mod = all_but_last(registers.local(without_bits_of_constants(mod)))
        mod = registers.apart(registers.on_stack(mod))
        return tirx.transform.BF16StorageLegalize()(spelled_out(mod))

    return kernels, host, device


def _without(name: str) -> tvm.transform.PassContext:
    """The current context, in which one more pass is left out."""
    now = tvm.transform.PassContext.current()
    return tvm.transform.PassContext(
        now.opt_level,
        required_pass=now.required_pass,
        disabled_pass=[*now.disabled_pass, name],
        config=dict(now.config),
    )


def without_bits_of_constants(mod: tvm.IRModule) -> tvm.IRModule:
    """A module whose kernels have bits where they would reinterpret a constant bfloat16."""

    def bits_of(call: Call) -> Expr:
        if not call.op.same_as(_REINTERPRET) or not _is_constant(call.args[0]):
            return call
        return tirx.reinterpret(call.ty.dtype, _bits(call.args[0]))

    return rewrite_bodies(mod, lambda func: tvm_ffi.structural_map(func.body, (Call, bits_of)))


def spelled_out(mod: tvm.IRModule) -> tvm.IRModule:
    """A module whose kernels repeat bits where they would repeat a bfloat16."""

    def repeat(node: tirx.Broadcast) -> Expr:
        if str(node.value.ty.dtype) != "bfloat16":
            return node
        return tirx.reinterpret(node.ty.dtype, tirx.Broadcast(_bits(node.value), node.lanes))

    return rewrite_bodies(
        mod, lambda func: tvm_ffi.structural_map(func.body, (tirx.Broadcast, repeat))
    )


def _is_constant(value: Any) -> bool:
    return isinstance(value, tirx.FloatImm) and str(value.ty.dtype) == "bfloat16"


def _bits(value: Expr) -> Expr:
    """A bfloat16 as uint16, a constant as a constant: LLVM has it as a float32."""
    if _is_constant(value):
        return tirx.const(int(np.array(value.value, ml_dtypes.bfloat16).view(np.uint16)), "uint16")
    return tirx.reinterpret("uint16", value)
