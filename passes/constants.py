"""Relax constants as NumPy arrays and back."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import tvm
from tvm import relax
from tvm.ir import GenericConst

Lookup = Callable[[relax.Var], "relax.Expr | None"]


def constant(value: np.ndarray) -> GenericConst:
    """A Relax constant of exactly `value`'s dtype and shape.

    `relax.const` turns a 0-d int64 into int32; the tensor constructor keeps it.
    """
    return relax.const(tvm.runtime.tensor(np.ascontiguousarray(value).reshape(value.shape)))


def as_constant(expr: relax.Expr, lookup: Lookup) -> GenericConst | None:
    """The constant that `expr` is, or that the variable `expr` is bound to, else None."""
    while isinstance(expr, relax.Var):
        bound = lookup(expr)
        if bound is None:
            return None
        expr = bound
    return expr if isinstance(expr, GenericConst) else None


def constant_values(exprs: Sequence[relax.Expr], lookup: Lookup) -> list[np.ndarray] | None:
    """The values of all of `exprs` if every one is a constant, else None."""
    found = []
    for expr in exprs:
        value = as_constant(expr, lookup)
        if value is None:
            return None
        found.append(value)
    return [value.value.numpy() for value in found]
