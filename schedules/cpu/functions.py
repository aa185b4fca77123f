"""The functions that kernels of a library share: tiles of products, of any height."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache

from tvm import tirx
from tvm.ir import Call, GlobalVar

from ..kernel.analysis import collect, constant
from . import rows_function, tile_function


def called_by(kernels: Iterable[tirx.PrimFunc]) -> dict[GlobalVar, tirx.PrimFunc]:
    """The functions that kernels call, which are to be in their module.

    The last argument of a call has the heights that the caller needs, as bits.
    """
    heights: dict[GlobalVar, int] = {}
    for call in collect([kernel.body for kernel in kernels], Call):
        if isinstance(call.op, GlobalVar):
            heights[call.op] = heights.get(call.op, 0) | (constant(call.args[-1]) or 0)
    found = {function: _definition(function.name_hint, bits) for function, bits in heights.items()}
    return {function: func for function, func in found.items() if func is not None}


@cache
def _definition(name: str, bits: int) -> tirx.PrimFunc | None:
    for kind in (tile_function, rows_function):
        func = kind.definition(name, bits)
        if func is not None:
            return func
    return None
