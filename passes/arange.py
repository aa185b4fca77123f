"""Lowering of arange, of which TVM makes a constant where its numbers are known, however many.

arange(0, 2147483647, 1)  ->  a kernel; TVM would allocate 16 GiB, and write them to the library
"""

from __future__ import annotations

from math import ceil

from tvm import relax, tirx, topi
from tvm.ir import Op

NAME = "relax.arange"
MOST_KNOWN = 1 << 16
"""Elements up to which they are a constant."""


def _lower(builder: relax.BlockBuilder, call: relax.Call) -> relax.Expr:
    start, end, step = call.args
    known = all(isinstance(value, tirx.IntImm | tirx.FloatImm) for value in call.args)
    if known and ceil((end.value - start.value) / step.value) <= MOST_KNOWN:
        return Op.get(NAME).get_attr("FLegalize")(builder, call)
    return builder.call_te(
        topi.arange, start, end, step, call.attrs.dtype, primfunc_name_hint="arange"
    )


LOWERINGS = {NAME: _lower}
