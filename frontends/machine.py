"""Calls of functions that run bodies: loops and choices, of Relax functions of the same module.

What they do is in tvmext/build/control_functions.py. They are calls of pure packed functions, among
the operators of a dataflow block; passes/machine_calls.py hands them the virtual machine.
"""

from __future__ import annotations

from collections.abc import Sequence

import tvm
from tvm import relax
from tvm.ir import GlobalVar

LOOP, CHOOSE = "tvmext_loop", "tvmext_choose"


def loop(
    body: GlobalVar,
    fixed: Sequence[relax.Expr],
    flag: relax.Expr,
    states: Sequence[relax.Expr],
    rest: Sequence[relax.Expr],
    rows: Sequence[relax.TensorType],
    results: Sequence[relax.TensorType],
) -> relax.Call:
    """``while flag: flag, states, row = body(fixed, flag, states, rest)``.

    Gives the states, then all rows of each kind one after another; `rows` are the types of one, of
    which dims count only if there is no iteration. `results` are the types of all that.
    """
    counts = [relax.prim_value(len(some)) for some in (fixed, states, rows)]
    described: list[relax.Expr] = []
    for row in rows:
        described += [row.shape, relax.prim_value(_dtype_number(str(row.dtype)))]
    return relax.call_pure_packed(
        LOOP,
        body,
        *counts,
        *described,
        *fixed,
        flag,
        *states,
        *rest,
        ty_args=[relax.TupleType(list(results))],
    )


def _dtype_number(dtype: str) -> int:
    """A DLDataType as the integer that its bytes are: code, bits and 16 bits of lanes."""
    kind = tvm.DataType(dtype)
    return int(kind.type_code) | kind.bits << 8 | 1 << 16


def choose(
    condition: relax.Expr,
    then: GlobalVar,
    otherwise: GlobalVar,
    arguments: Sequence[relax.Expr],
    results: Sequence[relax.TensorType],
) -> relax.Call:
    """``then(arguments) if condition else otherwise(arguments)``, a tuple of `results`."""
    return relax.call_pure_packed(
        CHOOSE, then, otherwise, condition, *arguments, ty_args=[relax.TupleType(list(results))]
    )
