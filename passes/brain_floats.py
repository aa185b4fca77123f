"""Lowering of casts from and to bfloat16, which is the upper half of a float32.

    float32(b)  =  bits(b) << 16
    bfloat16(x) =  (bits(x) + 2^15 - 1 + lowest kept bit) >> 16     the nearest, halves to even

On CPUs TVM's own cast of a vector reads the bits of a bfloat16 as an integer: 3.0 becomes 16448.
CUDA has instructions for both.
"""

from __future__ import annotations

from tvm import relax, te, tirx, topi
from tvm.ir import Expr, Op
from tvm.target import Target

NAME = "relax.astype"
KIND = "bfloat16"


def lower(builder: relax.BlockBuilder, call: relax.Call) -> relax.Expr:
    """A call of astype as a call of one function."""
    source, target = str(call.args[0].ty.dtype), str(call.ty.dtype)
    machine = Target.current(allow_none=True)
    native = machine is not None and str(machine.kind.name) == "cuda"
    if native or source == target or KIND not in (source, target):
        return Op.get(NAME).get_attr("FLegalize")(builder, call)

    def cast(x: te.Tensor) -> te.Tensor:
        if source == KIND:
            wide = te.compute(x.shape, lambda *at: widened(x(*at)), name="widened")
            return wide if target == "float32" else topi.cast(wide, target)
        wide = x if source == "float32" else topi.cast(x, "float32")
        return te.compute(x.shape, lambda *at: narrowed(wide(*at)), name="narrowed")

    return builder.call_te(cast, call.args[0], primfunc_name_hint="cast")


def widened(x: Expr) -> Expr:
    """A bfloat16 as float32."""
    bits = tirx.reinterpret("uint16", x).astype("uint32")
    return tirx.reinterpret("float32", bits << _u(16))


def narrowed(x: Expr) -> Expr:
    """A float32 as bfloat16; NaN stays NaN."""
    return tirx.reinterpret(KIND, _upper(x).astype("uint16"))


def rounded(x: te.Tensor) -> te.Tensor:
    """float32(bfloat16(x))"""

    def element(*at: Expr) -> Expr:
        return tirx.reinterpret("float32", _upper(x(*at)) << _u(16))

    return te.compute(x.shape, element, name="rounded")


def _upper(x: Expr) -> Expr:
    bits = tirx.reinterpret("uint32", x)
    odd = tirx.bitwise_and(bits >> _u(16), _u(1))
    nearest = (bits + odd + _u(0x7FFF)) >> _u(16)
    quiet = tirx.bitwise_or(bits >> _u(16), _u(0x40))
    is_nan = tirx.bitwise_and(bits, _u(0x7FFFFFFF)) > _u(0x7F800000)
    return tirx.Select(is_nan, quiet, nearest)


def _u(value: int) -> Expr:
    return tirx.const(value, "uint32")
