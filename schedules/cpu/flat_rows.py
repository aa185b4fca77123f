"""Where the rows of a product lie: walked as one axis where memory allows, else looked up.

    out[b, y, x, n] = sum_k a[b, y, x, k] * w[k, n]     is     out[r, n] = sum_k a[r, k] * w[k, n]

with r = (b*H + y)*W + x: no index needs the quotients that give b, y and x.

Rows that a window was cut from are looked up: a[(r // 49) // 4, .., k] is a[place[r], .., k].
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import tvm_ffi
from tvm import sym, tirx
from tvm.ir import Expr, TensorLoad, Var

from ..kernel.analysis import (
    Axis,
    analyzer,
    buffer_of,
    collect,
    constant,
    stride,
    substitute,
    variables,
)
from ..kernel.contraction import Contraction, Output
from ..kernel.emit import Values, allocate, block, index, loop, unravel


def flat_rows(found: Contraction) -> Contraction:
    """The contraction with neighbouring rows joined that every access walks as one.

    The last of them runs on past its extent, which every access takes: it is linear.
    """
    rows = list(found.rows)
    for place in reversed(range(len(rows) - 1)):
        outer, inner = rows[place : place + 2]
        if _as_one(found, outer, inner):
            rows[place : place + 2] = [replace(inner, extent=outer.extent * inner.extent)]
            found = replace(_without(found, outer), rows=tuple(rows))
    return found


def _as_one(found: Contraction, outer: Axis, inner: Axis) -> bool:
    if found.after:
        return False
    axes = (*found.batch, *found.rows, *found.cols, *found.reduce)
    pair = {outer.var, inner.var}
    if any(variables(_bare(value)) & pair for value in _values(found)):
        return False
    ana = analyzer([axis for axis in axes if axis not in (outer, inner)], (inner.extent,))
    loads = [load for value in _values(found) for load in collect(value, TensorLoad)]
    for access in (*loads, *found.outputs):
        far, near = (step_along(access, axis, ana) for axis in (outer, inner))
        if far is None or near is None or not ana.can_prove_equal(far, near * inner.extent):
            return False
    return True


def step_along(access: TensorLoad | Output, axis: Axis, ana: sym.Analyzer) -> Expr | None:
    """Elements between neighbours along an axis; None where that is not the same everywhere.

    Dim by dim: the difference of two offsets, products of unknowns, does not simplify.
    """
    total, size = index(0), index(1)
    for extent, at in reversed(list(zip(buffer_of(access).shape, access.indices))):
        step = stride(at, axis.var, ana)
        if step is None:
            return None
        total, size = total + step * size, size * extent
    return ana.simplify(total)


def steps_from_places(found: Contraction) -> bool:
    """Whether rows are looked up, and the step of a sum over them is known at run time only.

    Unless LLVM looks for better addresses, every step then multiplies for every row (64 channels of
    a picture in NCHW, stored as every second pixel: 80 us instead of 38).
    """
    rows, load = flat_rows(found).rows, found.lhs.load
    if load is None or all(axis.size is not None for axis in rows[1:]):
        return False
    ana = analyzer((*found.batch, *found.rows, *found.reduce), load.source.shape)
    steps = [step_along(load, axis, ana) for axis in found.reduce]
    return any(step is None or constant(step) is None for step in steps)


def _values(found: Contraction) -> list[Expr]:
    return [found.lhs.value, found.rhs.value, *(out.value for out in found.outputs)]


def _bare(value: Expr) -> Any:
    """`value` without what it loads and from where."""
    return tvm_ffi.structural_map(
        value, (TensorLoad, lambda load: tirx.const(0, load.ty.dtype)), order="pre"
    )


def _without(found: Contraction, outer: Axis) -> Contraction:
    """The contraction at 0 of an axis whose part another one has taken over."""
    zero = {outer.var: index(0)}
    lhs = replace(
        found.lhs,
        value=substitute(found.lhs.value, zero),
        load=substitute(found.lhs.load, zero),
        factor=substitute(found.lhs.factor, zero),
    )
    outputs = tuple(
        Output(
            out.buffer,
            tuple(substitute(i, zero) for i in out.indices),
            substitute(out.value, zero),
        )
        for out in found.outputs
    )
    return replace(found, lhs=lhs, outputs=outputs)


def named_places(found: Contraction) -> tuple[Expr, dict[Var, Expr]]:
    """The broadcast operand with names for indices that are more than a row, and what they are."""
    rows = {axis.var for axis in found.rows}
    others = {axis.var for axis in (*found.batch, *found.cols, *found.reduce)}
    named: dict[Var, Expr] = {}

    def name(place: Expr) -> Expr:
        used = variables(place)
        if not used & rows or used & others or not any(collect(place, kind) for kind in _QUOTIENTS):
            return place
        for var, value in named.items():
            if tvm_ffi.structural_equal(value, place):
                return var
        var = Var("place", "int64")
        named[var] = place
        return var

    def visit(load: TensorLoad) -> Expr:
        return tirx.BufferLoad(load.source, [name(i) for i in load.indices])

    return tvm_ffi.structural_map(found.lhs.value, (TensorLoad, visit)), named


_QUOTIENTS = (tirx.FloorDiv, tirx.FloorMod, tirx.Select)


def rows_at(
    rows: Sequence[Axis],
    first: Expr,
    height: int,
    body: Callable[[Callable[[Expr], Values]], tirx.Stmt],
    places: Mapping[Var, Expr] = MappingProxyType({}),
) -> tirx.Stmt:
    """`body` with what the axes, and `places` over them, are at each of `height` rows from `first`.

    Quotients are taken once: in the index of every load of an unrolled tile those by sizes that are
    known at run time only are minutes of code generation, and places in a window are seconds.
    """
    fixed = all(constant(axis.extent) is not None for axis in rows[1:])
    if fixed and not places:
        return body(lambda i: unravel(first + i, rows))
    names = [*([] if fixed else [axis.var for axis in rows]), *places]
    cells = [allocate([height], "int64", var.name) for var in names]

    def fill(i: Expr) -> tirx.Stmt:
        at = unravel(first + i, rows)
        values = {**at, **{var: substitute(place, at) for var, place in places.items()}}
        return block(*(tirx.BufferStore(cell, values[var], [i]) for var, cell in zip(names, cells)))

    def at(i: Expr) -> Values:
        looked_up = {var: cell[i] for var, cell in zip(names, cells)}
        return {**(unravel(first + i, rows) if fixed else {}), **looked_up}

    return block(*map(tirx.AllocBuffer, cells), loop(height, fill, name="i"), body(at))
