"""How an operand of a matrix product is read: what of it is contiguous, and under which condition.

    value(b, m, k) = if guard(b, m, k) then x[index(b, m, k)] else 0

`run` neighbours along one axis are neighbours in memory, begin at a multiple of `run` there, and
have one guard: they travel together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

import tvm_ffi
from tvm import tirx
from tvm.ir import Call, Expr, Op, TensorLoad, Var

from tvmext.arch import dtype_bits

from ..kernel.analysis import (
    Axis,
    analyzer,
    buffer_of,
    called_ops,
    collect,
    constant,
    counted,
    flat_index,
    stride,
    substitute,
    variables,
)
from ..kernel.emit import index
from .ptx import CHUNK_BYTES
from .vectors import is_bool

FLOAT8 = ("float8_e4m3fn", "float8_e5m2")
EXACT = {
    "float32": ("float16", "bfloat16", *FLOAT8),
    "float16": FLOAT8,
    "bfloat16": FLOAT8,
    "int32": ("int8", "uint8"),
}
"""Types that a wider one holds exactly: the cast happens where products are summed."""


@dataclass(frozen=True, eq=False)
class Unpacked:
    """An element as `value` of the number of its run along an axis, and its place in the run.

    `by_own`: neighbours in memory are neighbours along the operand's own axes.
    """

    value: Expr
    number: Var
    place: Var
    by_own: bool


@dataclass(frozen=True, eq=False)
class Source:
    """One operand. `load` is None where its elements have to be computed.

    `inward`: neighbours in memory are neighbours along the sum, not along the operand's own axes.
    `contiguous`: they are along one of the two. `unpacked`: a run is worked out of the same few
    loads, its elements one by one.
    """

    value: Expr
    load: TensorLoad | None
    guard: Expr | None
    inward: bool
    run: int
    contiguous: bool
    unpacked: Unpacked | None = None

    @property
    def dtype(self) -> str:
        return str(self.value.ty.dtype)

    @property
    def run_bytes(self) -> int:
        return self.run * dtype_bits(self.dtype) // 8

    def element(self, values: Mapping[Var, Expr], along: Var, v: Expr) -> Expr:
        """Element `v` of the run that begins at `values` of the axes."""
        if self.unpacked is None:
            return substitute(self.value, {**values, along: values[along] + v})
        one = self.unpacked
        own = {one.number: values[along] // self.run, one.place: v}
        return substitute(one.value, {**values, **own})


def source(
    value: Expr,
    batch: Sequence[Axis],
    own: Sequence[Axis],
    inner: Sequence[Axis],
    unpacks: bool = False,
) -> Source:
    """Read `value` over the axes of a contraction; `own` are the operand's rows or columns.

    With `unpacks` runs may be `Unpacked`.
    """
    value = narrow(value)
    guards, load = _guarded(value)
    axes = (*batch, *own, *inner)
    if load is None:
        found = _unpacked(value, own, inner, axes) if unpacks else None
        return found or _computed(value, own, inner, axes)
    guard = reduce(tirx.And, guards) if guards else None
    for inward, group in ((True, inner), (False, own)):
        if not group:
            continue
        step = stride(flat_index(load), group[-1].var, analyzer(axes, load.source.shape))
        if step is not None and constant(step) == 1:
            run = _run(load, guards, group, axes)
            return Source(value, load, guard, inward, run, True)
    return Source(value, load, guard, True, 1, False)


def _computed(
    value: Expr, own: Sequence[Axis], inner: Sequence[Axis], axes: Sequence[Axis]
) -> Source:
    """An operand that is worked out of what is loaded, such as a weight of bytes with its scale.

    Neighbours are computed as a vector where each load is one, or the same for all of them.
    """
    loads = collect(value, TensorLoad)
    plain = not collect(value, tirx.Select) and "prim.if_then_else" not in called_ops(value)
    for inward, group in ((True, inner), (False, own)):
        if not group or not plain or group[-1].var in outside_of_loads(value):
            continue
        last = group[-1]
        steps = [stride(flat_index(a), last.var, analyzer(axes, a.source.shape)) for a in loads]
        moving = [a for a, s in zip(loads, steps) if s is None or constant(s) != 0]
        run = CHUNK_BYTES * 8 // dtype_bits(str(value.ty.dtype))
        while run > 1 and not all(multiples(load, last, run, axes) for load in moving):
            run //= 2
        if moving and run > 1:
            return Source(value, None, None, inward, run, True)
    return Source(value, None, None, True, 1, False)


def _unpacked(
    value: Expr, own: Sequence[Axis], inner: Sequence[Axis], axes: Sequence[Axis]
) -> Source | None:
    """An operand whose elements along the sum are bits of one word (block_weight.py)."""
    if not inner or inner[-1].var not in outside_of_loads(value):
        return None
    last, run = inner[-1], CHUNK_BYTES * 8 // dtype_bits(str(value.ty.dtype))
    if last.size is None or last.size % run:
        return None
    number, place = (Var(name, last.var.ty) for name in ("number", "place"))
    ana = analyzer([axis for axis in axes if axis is not last])
    ana.bind(number, counted(last.extent // run))
    ana.bind(place, counted(tirx.const(run, "int64")))
    value_at = substitute(value, {last.var: number * run + place})

    def simplified(load: TensorLoad) -> Expr:
        return tirx.BufferLoad(load.source, [ana.simplify(i) for i in load.indices])

    value_at = tvm_ffi.structural_map(value_at, (TensorLoad, simplified))
    words = {
        (load.source, tvm_ffi.StructuralKey(ana.simplify(flat_index(at))))
        for load in collect(value_at, TensorLoad)
        for at in (substitute(load, {place: index(v)}) for v in range(run))
    }
    if len(words) >= run:
        return None
    steps = [
        stride(flat_index(load), own[-1].var, analyzer(axes, load.source.shape))
        for load in collect(value, TensorLoad)
        if own
    ]
    by_own = any(step is not None and constant(step) == 1 for step in steps)
    unpacked = Unpacked(value_at, number, place, by_own)
    return Source(value, None, None, True, run, True, unpacked)


def outside_of_loads(value: Expr) -> set[Var]:
    """Variables of `value` that are not in the index of a load."""
    return variables(
        tvm_ffi.structural_map(
            value, (TensorLoad, lambda load: tirx.const(0, str(load.source.ty.dtype)))
        )
    )


def narrow(value: Expr) -> Expr:
    """`value` without a cast that loses nothing."""
    if isinstance(value, tirx.Cast):
        inner = str(value.value.ty.dtype)
        if inner in EXACT.get(str(value.ty.dtype), ()):
            return value.value
    return value


def _guarded(value: Expr) -> tuple[list[Expr], TensorLoad | None]:
    """The conditions under which `value` is a load, being zero otherwise, and the load."""
    guards: list[Expr] = []
    while not isinstance(value, TensorLoad):
        chosen = _choice(value)
        if chosen is None:
            return [], None
        condition, value, otherwise = chosen
        if not _is_zero(otherwise):
            return [], None
        guards.append(condition)
    return guards, value


def _choice(value: Expr) -> tuple[Expr, Expr, Expr] | None:
    if isinstance(value, tirx.Select):
        return value.condition, value.true_value, value.false_value
    if isinstance(value, Call) and isinstance(value.op, Op):
        if value.op.name != "prim.if_then_else":
            return None
        condition, then, otherwise = value.args
        return condition, then, otherwise
    return None


def _is_zero(value: Expr) -> bool:
    return isinstance(value, tirx.IntImm | tirx.FloatImm) and value.value == 0


def _run(
    load: TensorLoad, guards: Sequence[Expr], group: Sequence[Axis], axes: Sequence[Axis]
) -> int:
    """The most elements, `CHUNK_BYTES` at most, that make a run along the last axis of `group`."""
    last = group[-1]
    if any(last.var in variables(guard) for guard in guards):
        return 1
    run = CHUNK_BYTES * 8 // dtype_bits(str(load.source.ty.dtype))
    while run > 1 and not multiples(load, last, run, axes):
        run //= 2
    return run


def multiples(access: Any, along: Axis, run: int, axes: Sequence[Axis]) -> bool:
    """Whether an access takes whole runs of neighbours along an axis, at multiples of `run`.

    Not one of truth values, which TVM has no vectors of.
    """
    return not is_bool(access) and whole_runs(access, along, run, axes)


def whole_runs(access: Any, along: Axis, run: int, axes: Sequence[Axis]) -> bool:
    """As `multiples`, of any type."""
    if along.size is None or along.size % run:
        return False
    shape, flat = buffer_of(access).shape, flat_index(access)
    step = stride(flat, along.var, analyzer(axes, shape))
    if step is None or constant(step) != 1:
        return False
    ana = analyzer([axis for axis in axes if axis is not along], shape)
    chunk = Var("chunk", along.var.ty)
    ana.bind(chunk, counted(along.extent // run))
    start = substitute(flat, {along.var: chunk * run})
    return constant(ana.simplify(tirx.floormod(start, tirx.const(run, "int64")))) == 0
