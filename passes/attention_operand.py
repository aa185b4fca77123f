"""Where an operand of attention comes from, behind the operators that only rearrange it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from tvm import relax, sym, tirx
from tvm.ir import GenericConst

from .attention import Band
from .widen_halves import HALVES


@dataclass(frozen=True, eq=False)
class Bindings:
    """What the variables of a function are bound to."""

    values: Mapping[relax.Var, relax.Expr]

    def of(self, expr: relax.Expr, *ops: str) -> relax.Call | None:
        """The call of one of `ops` that `expr` is bound to, if it is one."""
        value = self.values.get(expr) if isinstance(expr, relax.Var) else None
        return value if called(value, *ops) else None


@dataclass(frozen=True)
class Operand:
    """``scale * source``, axis `a` of the operand along dim ``axes[a]`` of the source.

    Of axis `shared` each `times` neighbours are one and the same slice of the source.
    """

    source: relax.Expr
    axes: tuple[int, ...]
    scale: float = 1.0
    shared: int | None = None
    times: int = 1


def operand(expr: relax.Expr, bindings: Bindings, scaled: bool, sharing: bool) -> Operand:
    """Walk from `expr` to its source; `scaled`, `sharing`: whether factors, copies are left out.

    An output of the graph is read where it is, because it is in memory anyway.
    """
    axes = tuple(range(len(shape_of(expr))))
    found = Operand(expr, axes)
    while isinstance(found.source, relax.DataflowVar):
        step = (
            _permuted(found, bindings)
            or _reshaped(found, bindings, sharing)
            or (_factor(found, bindings) if scaled else None)
        )
        if step is None:
            break
        found = step
    return found


def _permuted(found: Operand, bindings: Bindings) -> Operand | None:
    call = bindings.of(found.source, "relax.permute_dims")
    if call is None or call.attrs.axes is None:
        return None
    order = [int(axis) for axis in call.attrs.axes]
    return _moved(found, call.args[0], tuple(order[axis] for axis in found.axes))


def _moved(found: Operand, source: relax.Expr, axes: tuple[int, ...]) -> Operand:
    return Operand(source, axes, found.scale, found.shared, found.times)


def _factor(found: Operand, bindings: Bindings) -> Operand | None:
    """A product with a number, or a quotient by one."""
    for op in ("relax.multiply", "relax.divide"):
        call = bindings.of(found.source, op)
        for source, factor in _pairs(call, commutes=op == "relax.multiply"):
            value = number(factor)
            if value is not None and value != 0 and same_shape(source, found.source):
                scale = found.scale * value if op == "relax.multiply" else found.scale / value
                return Operand(source, found.axes, scale, found.shared, found.times)
    return None


def _pairs(call: relax.Call | None, commutes: bool) -> list[tuple[relax.Expr, relax.Expr]]:
    if call is None:
        return []
    left, right = call.args
    return [(left, right), (right, left)] if commutes else [(left, right)]


def _reshaped(found: Operand, bindings: Bindings, sharing: bool) -> Operand | None:
    """A reshape to the same shape, around a transpose, or of copies for the heads of a group."""
    call = bindings.of(found.source, "relax.reshape")
    if call is None:
        return None
    source, shape = call.args[0], shape_of(found.source)
    if same(shape_of(source), shape):
        return _moved(found, source, found.axes)
    inner = bindings.of(source, "relax.permute_dims")
    if inner is not None:
        return _swapped(found, inner, bindings)
    copies = bindings.of(source, "relax.broadcast_to")
    if copies is not None and sharing and found.shared is None:
        return _copied(found, copies, bindings)
    return None


def _swapped(found: Operand, inner: relax.Call, bindings: Bindings) -> Operand | None:
    """[.., a, b] -> [n, a, b] -> [n, b, a] -> [.., b, a]"""
    flat = bindings.of(inner.args[0], "relax.reshape")
    if flat is None or [int(axis) for axis in inner.attrs.axes or ()] != [0, 2, 1]:
        return None
    before, middle, after = (shape_of(e) for e in (flat.args[0], inner.args[0], found.source))
    if len(before) < 3 or not same(before[-2:], middle[1:]):
        return None
    if not same([*before[:-2], before[-1], before[-2]], after):
        return None
    last = len(before) - 1
    swap = {last: last - 1, last - 1: last}
    return _moved(found, flat.args[0], tuple(swap.get(axis, axis) for axis in found.axes))


def _copied(found: Operand, copies: relax.Call, bindings: Bindings) -> Operand | None:
    """[.., h, s, d] -> [.., h, 1, s, d] -> [.., h, times, s, d] -> [.., h * times, s, d]"""
    inserted = bindings.of(copies.args[0], "relax.reshape", "relax.expand_dims")
    if inserted is None:
        return None
    source = inserted.args[0]
    before, after = shape_of(source), shape_of(found.source)
    one, many = shape_of(copies.args[0]), list(copies.args[1].values)
    times = fixed(many[-3]) if len(many) == len(before) + 1 > 3 else None
    if times is None:
        return None
    *lead, heads, rows, depth = before
    if not (
        same(one, [*lead, heads, 1, rows, depth])
        and same(many, [*lead, heads, times, rows, depth])
        and same(after, [*lead, heads * times, rows, depth])
    ):
        return None
    axis = found.axes.index(len(before) - 3)
    return Operand(source, found.axes, found.scale, axis, times)


def shape_of(expr: relax.Expr) -> list[Any]:
    """The dims of a tensor; empty if they are not known."""
    shape = getattr(expr.ty, "shape", None)
    return list(shape) if shape is not None else []


def same(left: list[Any], right: list[Any]) -> bool:
    """Whether two lists of dims are equal for sure."""
    prove = sym.Analyzer().can_prove_equal
    return len(left) == len(right) and all(prove(a, b) for a, b in zip(left, right))


def same_shape(left: relax.Expr, right: relax.Expr) -> bool:
    return same(shape_of(left), shape_of(right))


def fixed(dim: Any) -> int | None:
    """A dim that is known at compile time."""
    if isinstance(dim, int):
        return dim
    return int(dim.value) if isinstance(dim, tirx.IntImm) else None


def number(expr: relax.Expr) -> float | None:
    """The value of a constant with a single element."""
    if not isinstance(expr, GenericConst):
        return None
    value = expr.value.numpy()
    return float(value.reshape(())) if value.size == 1 and value.ndim <= 1 else None


def band(expr: relax.Expr, rows: Any, keys: Any) -> Band | None:
    """A constant mask of `rows` x `keys`, the same for all heads, as one of a band: causal ones."""
    if not isinstance(expr, GenericConst) or str(expr.ty.dtype) not in (*HALVES, "float32", "bool"):
        return None
    values = expr.value.numpy()
    if values.shape[-2:] != (fixed(rows), fixed(keys)) or values.size != prod(values.shape[-2:]):
        return None
    values = values.reshape(values.shape[-2:])
    if 0 in values.shape:
        return None
    inside, outside = values[-1, 0], values[0, -1]
    near = values == inside
    distance = np.arange(values.shape[1]) - np.arange(values.shape[0])[:, None]
    if inside == outside or not near.any():
        return None
    offset = int(distance[near].max())
    if not np.array_equal(values, np.where(distance <= offset, inside, outside)):
        return None
    kind = bool if values.dtype == np.bool_ else float
    return Band(offset, kind(inside), kind(outside))


def called(value: Any, *ops: str) -> bool:
    return isinstance(value, relax.Call) and getattr(value.op, "name", "") in ops
