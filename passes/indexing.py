"""Operators that read or write at positions that are data: no index reaches outside of a tensor.

    position(i, n, "fast")   i + n if i < 0 else i, moved to the nearest of 0 .. n-1
    position(i, n, "clip")   i, moved to the nearest of 0 .. n-1
    position(i, n, "wrap")   i modulo n
    position(i, n, "outside")    i + n if i < 0 else i, which may be out of range: to compare with

A gather reads at such a position; a scatter leaves out what is to go outside. ONNX and Relax say
nothing about indices out of range, and ONNX Runtime refuses them; here they cost two instructions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import numpy as np
import tvm_ffi
from tvm import relax, sym, te, tirx, topi
from tvm.ir import Expr, Op
from tvm.script.ir_builder import IRBuilder
from tvm.script.ir_builder import tirx as T

from tvmext.frontends.nest import serial_loops

MODES = ("fast", "clip", "wrap")
"""What is done with an index that is out of range, where that is a matter of indices."""

PARALLEL_COPY = 1 << 16
"""Elements from which on a scatter copies its data with all threads."""


def position(index: Expr, extent: Any, mode: str = "fast") -> Expr:
    """Where along an axis of `extent` an index from data points to, as int64; extent > 0."""
    index, extent = index.astype("int64"), tirx.convert(extent).astype("int64")
    if mode == "wrap":
        return tirx.floormod(index, extent)
    if mode in ("fast", "outside"):
        index = from_end(index, extent)
    if mode == "outside":
        return index
    return tirx.max(tirx.min(index, extent - 1), tirx.const(0, "int64"))


def from_end(index: Expr, extent: Expr) -> Expr:
    """The index, counted from the end if it is negative."""
    return tirx.Select(index < 0, index + extent, index)


def read_position(expr: Expr) -> tuple[Expr, Expr, str] | None:
    """The (index, extent, mode) of which an expression is the `position`; None if it is none."""
    if isinstance(expr, tirx.FloorMod):
        return _uncast(expr.a), expr.b, "wrap"
    if isinstance(expr, tirx.Max) and isinstance(expr.a, tirx.Min) and _is_zero(expr.b):
        extent = expr.a.b + 1
        inner = _read_from_end(expr.a.a)
        if inner is None:
            return _uncast(expr.a.a), extent, "clip"
        same = sym.Analyzer().can_prove_equal(inner[1], extent)
        return (_uncast(inner[0]), extent, "fast") if same else None
    inner = _read_from_end(expr)
    return None if inner is None else (_uncast(inner[0]), inner[1], "outside")


def _read_from_end(expr: Expr) -> tuple[Expr, Expr] | None:
    """The (index, extent) of which an expression is `from_end`."""
    if not (isinstance(expr, tirx.Select) and isinstance(expr.true_value, tirx.Add)):
        return None
    index, test, extent = expr.false_value, expr.condition, expr.true_value.b
    below = isinstance(test, tirx.LT) and _is_zero(test.b)
    same = below and all(tvm_ffi.structural_equal(index, i) for i in (test.a, expr.true_value.a))
    return (index, extent) if same else None


def _is_zero(expr: Expr) -> bool:
    return isinstance(expr, tirx.IntImm) and expr.value == 0


def _uncast(expr: Expr) -> Expr:
    return expr.value if isinstance(expr, tirx.Cast) else expr


def positions(indices: np.ndarray, extent: int, mode: str = "fast") -> np.ndarray:
    """`position` of every index, in NumPy."""
    indices = indices.astype(np.int64)
    if mode == "wrap":
        return indices % extent
    if mode in ("fast", "outside"):
        indices = np.where(indices < 0, indices + extent, indices)
    if mode == "outside":
        return indices
    return np.clip(indices, 0, extent - 1)


def _of_something(read: Callable[..., relax.Expr]) -> Callable[..., relax.Expr]:
    """A lowering of a read, zeros where there is nothing to read."""

    def lower(builder: relax.BlockBuilder, call: relax.Call) -> relax.Expr:
        if not any(_is_zero(size) for size in call.args[0].ty.shape):
            return read(builder, call)
        return builder.call_te(topi.full, list(call.ty.shape), str(call.ty.dtype), 0)

    return lower


@_of_something
def take(builder: relax.BlockBuilder, call: relax.Call) -> relax.Expr:
    """out[a.., i.., b..] = x[a.., indices[i..], b..]"""
    if not isinstance(call.args[1].ty, relax.TensorType) or call.attrs.mode not in MODES:
        return Op.get("relax.take").get_attr("FLegalize")(builder, call)
    indices_rank = len(call.args[1].ty.shape)
    axis = int(call.attrs.axis or 0) % len(call.args[0].ty.shape)

    def compute(x: te.Tensor, indices: te.Tensor) -> te.Tensor:
        def element(*at: Expr) -> Expr:
            found = indices(*at[axis : axis + indices_rank])
            row = position(found, x.shape[axis], call.attrs.mode)
            return x(*at[:axis], row, *at[axis + indices_rank :])

        return te.compute(list(call.ty.shape), element, name="take")

    return builder.call_te(compute, *call.args, primfunc_name_hint="take")


@_of_something
def gather_elements(builder: relax.BlockBuilder, call: relax.Call) -> relax.Expr:
    """out[i, j, ..] = x[indices[i, j, ..], j, ..], the index taking the place of `axis`."""
    axis = int(call.attrs.axis) % len(call.args[0].ty.shape)

    def compute(x: te.Tensor, indices: te.Tensor) -> te.Tensor:
        def element(*at: Expr) -> Expr:
            row = position(indices(*at), x.shape[axis])
            return x(*at[:axis], row, *at[axis + 1 :])

        return te.compute(indices.shape, element, name="gather_elements")

    return builder.call_te(compute, *call.args, primfunc_name_hint="gather_elements")


@_of_something
def gather_nd(builder: relax.BlockBuilder, call: relax.Call) -> relax.Expr:
    """out[b.., i.., s..] = x[b.., indices[b.., i.., 0], indices[b.., i.., 1], .., s..]"""
    batch = int(call.attrs.batch_dims)

    def compute(x: te.Tensor, indices: te.Tensor) -> te.Tensor:
        outer, depth = len(indices.shape) - 1, int(indices.shape[-1])

        def element(*at: Expr) -> Expr:
            rows = [position(indices(*at[:outer], k), x.shape[batch + k]) for k in range(depth)]
            return x(*at[:batch], *rows, *at[outer:])

        return te.compute(list(call.ty.shape), element, name="gather_nd")

    return builder.call_te(compute, *call.args, primfunc_name_hint="gather_nd")


def scatter_elements(builder: relax.BlockBuilder, call: relax.Call) -> relax.Expr:
    """out = x;  out[indices[i, j, ..], j, ..] = updates[i, j, ..], in order."""
    axis = int(call.attrs.axis) % len(call.args[0].ty.shape)

    def place(x: Any, indices: Any, at: Sequence[Expr]) -> tuple[list[Expr], list[int]]:
        return [*at[:axis], indices[tuple(at)], *at[axis + 1 :]], [axis]

    return _scatter(builder, call, lambda indices: len(indices.shape), place)


def scatter_nd(builder: relax.BlockBuilder, call: relax.Call) -> relax.Expr:
    """out = x;  out[indices[i.., 0], indices[i.., 1], .., s..] = updates[i.., s..], in order."""

    def place(x: Any, indices: Any, at: Sequence[Expr]) -> tuple[list[Expr], list[int]]:
        depth = int(indices.shape[-1])
        return [indices[(*at, k)] for k in range(depth)], list(range(depth))

    return _scatter(builder, call, lambda indices: len(indices.shape) - 1, place)


def _scatter(
    builder: relax.BlockBuilder, call: relax.Call, outer: Callable[[Any], int], place: Any
) -> relax.Expr:
    """`place` gives the target's first indices for the first ones of an update, and which are data.

    What an index out of range is clamped to tells that it was.
    """
    combine = COMBINE[call.attrs.reduction]

    def generate(x: Any, indices: Any, updates: Any, out: Any) -> tirx.Stmt:
        count = outer(indices)

        def store(at: Sequence[Expr]) -> None:
            rows, data = place(x, indices, at)
            inside = []
            for k in data:
                wanted = T.bind(from_end(rows[k].astype("int64"), x.shape[k]))
                rows[k] = T.bind(position(wanted, x.shape[k], "clip"))
                some = tirx.convert(x.shape[k]) > 0
                inside.append(tirx.And(some, rows[k].equal(wanted)))

            def element(rest: Sequence[Expr]) -> None:
                target = (*rows, *rest)
                T.buffer_store(out, combine(out[target], updates[(*at, *rest)]), target)

            with T.If(tirx.all(*inside)), T.Then():
                serial_loops(updates.shape[count:], element)

        with IRBuilder() as ib:
            with T.seq_scope():
                size = prod(x.shape)
                large = not isinstance(size, int | tirx.IntImm) or int(size) >= PARALLEL_COPY
                flat = [T.buffer_proxy(buffer) for buffer in (x, out)]
                with (T.parallel if large else T.serial)(0, size) as i:
                    flat[1][i] = flat[0][i]
                serial_loops(updates.shape[:count], store)
            return ib.get()

    def compute(x: te.Tensor, indices: te.Tensor, updates: te.Tensor) -> te.Tensor:
        out = tirx.decl_buffer(x.shape, x.dtype, "out", layout=None)
        return te.extern(
            [x.shape],
            [x, indices, updates],
            lambda ins, outs: generate(*ins, *outs),
            dtype=x.dtype,
            out_buffers=[out],
            name="scatter",
        )

    return builder.call_te(compute, *call.args[:3], primfunc_name_hint="scatter")


COMBINE: dict[str, Callable[[Expr, Expr], Expr]] = {
    "update": lambda _, new: new,
    "add": lambda old, new: old + new,
    "mul": lambda old, new: old * new,
    "max": tirx.max,
    "min": tirx.min,
    "mean": lambda old, new: (old + new) / 2,
}

LOWERINGS: dict[str, Callable[[relax.BlockBuilder, relax.Call], relax.Expr]] = {
    "relax.take": take,
    "relax.gather_elements": gather_elements,
    "relax.gather_nd": gather_nd,
    "relax.scatter_elements": scatter_elements,
    "relax.scatter_nd": scatter_nd,
}
