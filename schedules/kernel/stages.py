"""From blocks to stages: what is computed in place and what gets storage.

A fused function has a block per operator; most are worth nothing but their expression. A *stage* is
a block that is given storage (an output, a reduction, or a costly value that is used at several
places), with everything else expanded into its expressions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import tvm_ffi
from tvm import sym, tirx
from tvm.ir import Call, Expr, TensorLoad, Var

from .analysis import (
    REDUCE,
    Axis,
    Block,
    View,
    analyzer,
    called_ops,
    collect,
    constant,
    substitute,
    variables,
)

# Worth keeping rather than computing twice: tens of instructions each.
COSTLY = frozenset(
    f"tirx.{name}"
    for name in [
        *("acos", "acosh", "asin", "asinh", "atan", "atan2", "atanh", "cos", "cosh"),
        *("sin", "sinh", "tan", "tanh", "sigmoid", "erf", "pow", "sqrt", "rsqrt"),
        *("exp", "exp10", "exp2", "log", "log10", "log1p", "log2"),
        *("call_pure_extern", "call_extern"),
    ]
)


COMBINE = {
    "add": lambda a, b: a + b,
    "mul": lambda a, b: a * b,
    "max": tirx.max,
    "min": tirx.min,
}
"""What a store of a stage may reduce with, by name."""


@dataclass(frozen=True, eq=False)
class Point:
    """Straight-line code for one iteration: scalars bound in order, then one value per store."""

    binds: tuple[tuple[Var, Expr], ...]
    values: tuple[Expr, ...]

    def exprs(self) -> Iterable[Expr]:
        yield from (value for _, value in self.binds)
        yield from self.values

    def at(self, values: dict[Var, Expr]) -> Point:
        """The same code with variables replaced and fresh names for what it binds."""
        values = dict(values)
        binds = []
        for var, value in self.binds:
            fresh = Var(var.name, var.ty)
            binds.append((fresh, substitute(value, values)))
            values[var] = fresh
        return Point(tuple(binds), tuple(substitute(value, values) for value in self.values))

    def map(self, visit: Callable[[TensorLoad], Expr]) -> Point:
        """The same code with other expressions for its loads."""

        def new(expr: Expr) -> Expr:
            return tvm_ffi.structural_map(expr, (TensorLoad, visit))

        binds = tuple((var, new(value)) for var, value in self.binds)
        return Point(binds, tuple(map(new, self.values)))

    def loads(self) -> list[TensorLoad]:
        return [load for expr in self.exprs() for load in collect(expr, TensorLoad)]


@dataclass(frozen=True, eq=False)
class Write:
    """Where a stage stores; `op` and `init` say how a reduction combines, None if it is none.

    `op` is "add", "mul", "max" or "min", or "" if the values are whole new contents of the store.
    """

    buffer: Var
    indices: tuple[Expr, ...]
    op: str | None = None
    init: Expr | None = None


@dataclass(frozen=True, eq=False)
class Stage:
    """One block with storage. `epilogue` follows a reduction elementwise, in the same place.

    `limits` shortens loops of a reduction: (axis, "low" or "high", expression over other axes) says
    that the axis starts there, or ends before it.
    """

    name: str
    spatial: tuple[Axis, ...]
    reduce: tuple[Axis, ...]
    writes: tuple[Write, ...]
    point: Point
    epilogue: Stage | None = None
    limits: tuple[tuple[Var, str, Expr], ...] = ()

    @property
    def is_reduction(self) -> bool:
        return self.writes[0].op is not None

    @property
    def axes(self) -> tuple[Axis, ...]:
        return self.spatial + self.reduce


def stages(view: View) -> tuple[Stage, ...]:
    """The stages of a kernel in the order of its blocks."""
    kept = _kept(view)
    inlined = {
        block.stores[0].buffer: block for block in view.blocks if not any(b is block for b in kept)
    }
    return _attach_epilogues([_stage(block, inlined) for block in kept], view.outputs)


# ------------------------------------------------------------------ what is kept


def _kept(view: View) -> list[Block]:
    """Blocks that get storage, decided from the last to the first."""
    roots: dict[int, set[int]] = {}
    costly = _costly(view)
    kept: list[Block] = []
    for number in reversed(range(len(view.blocks))):
        block = view.blocks[number]
        users = [b for store in block.stores for b in view.consumers.get(store.buffer, ())]
        places = {place for b in users for place in roots[id(b)]}
        output = any(store.buffer in view.outputs for store in block.stores)
        several = number in costly and (len(places) > 1 or _repeats(block, users))
        several = several or _is_assembled_row(block, users)
        if output or (places and (several or not _may_inline(block))):
            kept.append(block)
            places = {number}
        # The kept blocks that the value ends up in; none if nobody needs it.
        roots[id(block)] = places
    return kept[::-1]


def _may_inline(block: Block) -> bool:
    """A single value stored at the block's own axes, each the index of one dim."""
    if block.is_reduction or len(block.stores) != 1:
        return False
    store = block.stores[0]
    used = [index for index in store.indices if isinstance(index, Var)]
    rest = [d for i, d in zip(store.indices, store.buffer.shape) if not isinstance(i, Var)]
    axes = {axis.var for axis in block.axes}
    return (
        set(used) <= axes
        and len(set(used)) == len(used)
        and all(constant(extent) == 1 for extent in rest)
        and all(axis.size == 1 or axis.var in used for axis in block.axes)
    )


def _costly(view: View) -> set[int]:
    """Numbers of the blocks whose expanded value holds a costly call."""
    found: set[int] = set()
    by_buffer: dict[Var, int] = {}
    for number, block in enumerate(view.blocks):
        sources = [by_buffer[load.source] for load in block.loads if load.source in by_buffer]
        own = any(called_ops(store.value) & COSTLY for store in block.stores)
        if not block.is_reduction and (own or any(source in found for source in sources)):
            found.add(number)
        by_buffer |= {store.buffer: number for store in block.stores}
    return found


def _repeats(block: Block, users: list[Block]) -> bool:
    """Some user would compute the value over and over, not just once per run of its inner loop."""
    buffer = block.stores[0].buffer
    return any(
        _reads_repeatedly(user, load)
        for user in users
        for load in user.loads
        if load.source.same_as(buffer)
    )


def _is_assembled_row(block: Block, users: list[Block]) -> bool:
    """A row of pieces from several places that is reduced along them.

    As a stage it is copied piece by piece; in a reduction every element would look for its piece.
    """
    value = block.stores[0].value
    if block.is_reduction or not block.axes or not _is_chosen(value, block.axes[-1].var):
        return False
    reduced = {axis.var for user in users for axis in user.reduce}
    buffer = block.stores[0].buffer
    loads = [load for user in users for load in user.loads if load.source.same_as(buffer)]
    return any(load.indices[-1] in reduced for load in loads)


def _is_chosen(value: Expr, along: Var) -> bool:
    """Whether a value is one of several loads, as a condition along an axis tells."""
    if getattr(getattr(value, "op", None), "name", "") != "prim.if_then_else":
        return False
    condition, *ways = value.args
    return along in variables(condition) and all(
        isinstance(way, TensorLoad) or _is_chosen(way, along) for way in ways
    )


def _reads_repeatedly(user: Block, load: TensorLoad) -> bool:
    """The load's element is the same for several values of an axis, or for windows that overlap."""
    axes = {axis.var for axis in user.axes}
    used = [variables(index) & axes for index in load.indices]
    if user.reduce and any(len(own) > 1 for own in used):
        return True
    moving = set().union(*used)
    misses = any(axis.var not in moving and axis.size != 1 for axis in user.axes)
    return misses and user.axes[-1].var in moving


# ------------------------------------------------------------------ expanding


def _stage(block: Block, inlined: dict[Var, Block]) -> Stage:
    ana = analyzer(block.axes)
    unit = {axis.var: tirx.const(0, axis.var.ty.dtype) for axis in block.axes if axis.size == 1}
    writes, values = [], []
    for store in block.stores:
        own = block.combiner
        op = None if not block.is_reduction else own.op if own else ""
        values.append(substitute(own.value if own else store.value, unit))
        indices = tuple(ana.simplify(substitute(index, unit)) for index in store.indices)
        writes.append(Write(store.buffer, indices, op, store.init))
    axes = [_without(axis, unit) for axis in block.axes if axis.size != 1]
    return Stage(
        block.name,
        tuple(axis for axis in axes if axis.kind != REDUCE),
        tuple(axis for axis in axes if axis.kind == REDUCE),
        tuple(writes),
        _Expander(inlined, ana).point(values),
    )


def _without(axis: Axis, unit: dict[Var, Expr]) -> Axis:
    """The axis, its extent told for axes that are 0."""
    if not variables(axis.extent) & set(unit):
        return axis
    extent = sym.Analyzer().simplify(substitute(axis.extent, unit))
    return replace(axis, extent=extent)


class _Expander:
    """Replaces loads of inlined buffers by what they hold; equal loads share one bound scalar."""

    def __init__(self, inlined: dict[Var, Block], ana: sym.Analyzer) -> None:
        self.inlined = inlined
        self.ana = ana
        self.binds: list[tuple[Var, Expr]] = []
        self.bound: dict[object, Expr] = {}

    def point(self, values: Iterable[Expr]) -> Point:
        expanded = tuple(self.expand(value) for value in values)
        return Point(tuple(self.binds), expanded)

    def expand(self, expr: Expr) -> Expr:
        # A branch may load out of range where its condition does not hold: nothing leaves it.
        expr = tvm_ffi.structural_map(expr, (Call, self._guarded), order="pre")
        return tvm_ffi.structural_map(expr, (TensorLoad, lambda load: self._load(load, True)))

    def _guarded(self, call: Call) -> Expr:
        if getattr(call.op, "name", "") != "prim.if_then_else":
            return call
        condition, *branches = call.args
        condition = self.ana.simplify(self.expand(condition))
        if constant(condition) is not None:
            return self.expand(branches[0] if constant(condition) else branches[1])
        branches = [self._textual(branch) for branch in branches]
        return tirx.if_then_else(condition, *branches)

    def _textual(self, expr: Expr) -> Expr:
        return tvm_ffi.structural_map(expr, (TensorLoad, lambda load: self._load(load, False)))

    def _load(self, load: TensorLoad, bind: bool) -> Expr:
        indices = [self.ana.simplify(index) for index in load.indices]
        block = self.inlined.get(load.source)
        if block is None:
            return load.source[tuple(indices)] if indices else load
        store = block.stores[0]
        values = {axis.var: tirx.const(0, axis.var.ty.dtype) for axis in block.axes}
        values |= {own: index for own, index in zip(store.indices, indices) if isinstance(own, Var)}
        value = substitute(store.value, values)
        if not bind:
            return self._textual(value)
        key = (load.source, *(tvm_ffi.StructuralKey(index) for index in indices))
        if key not in self.bound:
            value = self.expand(value)
            if _worth_binding(value):
                var = Var(block.name, value.ty)
                self.binds.append((var, _without_bool_casts(value)))
                value = var
            self.bound[key] = value
        return self.bound[key]


def _worth_binding(value: Expr) -> bool:
    """Whether `value` is computed once and named; TVM cannot vectorize a named truth value."""
    if isinstance(value, TensorLoad | tirx.IntImm | tirx.FloatImm | Var):
        return False
    dtype = str(value.ty.dtype)
    return dtype != "bool" and (not dtype.startswith("int") or bool(collect(value, TensorLoad)))


def _without_bool_casts(value: Expr) -> Expr:
    """Truth values as selections of 1 or 0: TVM cannot vectorize a named cast of one."""

    def visit(cast: tirx.Cast) -> Expr:
        dtype = cast.ty.dtype
        if str(cast.value.ty.dtype) != "bool":
            return cast
        return tirx.Select(cast.value, tirx.const(1, dtype), tirx.const(0, dtype))

    return tvm_ffi.structural_map(value, (tirx.Cast, visit))


def _attach_epilogues(found: list[Stage], outputs: tuple[Var, ...]) -> tuple[Stage, ...]:
    """Fold a spatial stage into the reduction before it that it alone reads, axis by axis."""
    result = list(found)
    for after in found:
        sources = {load.source for load in after.point.loads()}
        before = [
            s for s in result if s.is_reduction and any(w.buffer in sources for w in s.writes)
        ]
        if after.is_reduction or len(before) != 1 or before[0].epilogue:
            continue
        stage = before[0]
        others = [s for s in result if s is not after and s is not stage]
        buffers = {w.buffer for w in stage.writes}
        if buffers & set(outputs) or any(
            load.source in buffers for s in others for load in s.point.loads()
        ):
            continue
        mapping = _same_point(stage, after)
        if mapping is None:
            continue
        point = after.point.at(mapping)
        writes = tuple(
            replace(w, indices=tuple(substitute(i, mapping) for i in w.indices))
            for w in after.writes
        )
        # What the epilogue does not read is not computed.
        extents = {mapping[axis.var]: axis.extent for axis in after.spatial}
        spatial = tuple(replace(axis, extent=extents[axis.var]) for axis in stage.spatial)
        joined = Stage(after.name, spatial, (), writes, point)
        result[result.index(stage)] = replace(stage, spatial=spatial, epilogue=joined)
        result.remove(after)
    return tuple(result)


def _same_point(stage: Stage, after: Stage) -> dict[Var, Expr] | None:
    """{axis of `after`: axis of `stage`} if `after` reads the reduction just where it writes."""
    mapping: dict[Var, Expr] = {}
    buffers = {w.buffer: w for w in stage.writes}
    for load in after.point.loads():
        if load.source not in buffers:
            continue
        for own, index in zip(buffers[load.source].indices, load.indices):
            if constant(own) == 0 and constant(index) == 0:
                continue
            if not (isinstance(own, Var) and isinstance(index, Var)):
                return None
            if mapping.setdefault(index, own) is not own and not mapping[index].same_as(own):
                return None
    if len(mapping) != len(after.spatial) or len(mapping) != len(stage.spatial):
        return None
    return mapping


@dataclass(frozen=True, eq=False)
class Stages:
    """A kernel as the stages that get storage, in order."""

    stages: tuple[Stage, ...]

    def __str__(self) -> str:
        return " -> ".join(map(str, self.stages))
