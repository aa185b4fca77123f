"""How a stage's loads and stores move along its axes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import lru_cache

import tvm_ffi
from tvm import tirx
from tvm.ir import Call, Expr, TensorLoad, Var

from .analysis import (
    Axis,
    analyzer,
    buffer_of,
    collect,
    constant,
    flat_index,
    stride,
    variables,
)
from .stages import Point, Stage, Write

_DIVISIONS = (tirx.FloorDiv, tirx.FloorMod, tirx.Div, tirx.Mod)


def stores(stage: Stage) -> tuple[Write, ...]:
    """What a stage leaves in memory: the epilogue's stores if it has one."""
    return stage.epilogue.writes if stage.epilogue else stage.writes


@lru_cache(maxsize=1024)
def loads(stage: Stage) -> tuple[TensorLoad, ...]:
    """Every load of a stage, its epilogue's loads of the reduction itself left out."""
    found = stage.point.loads()
    if stage.epilogue:
        own = {write.buffer for write in stage.writes}
        found += [load for load in stage.epilogue.point.loads() if load.source not in own]
    return tuple(found)


@lru_cache(maxsize=1024)
def accesses(stage: Stage) -> tuple[TensorLoad | Write, ...]:
    """Loads and stores, those of the epilogue included."""
    found: list[TensorLoad | Write] = [*stage.point.loads(), *stage.writes]
    if stage.epilogue:
        found += [*stage.epilogue.point.loads(), *stage.epilogue.writes]
    return tuple(found)


@lru_cache(maxsize=1024)
def offsets(stage: Stage) -> tuple[Expr, ...]:
    """Where each access lies in its buffer, in elements, as simple as the axes' ranges allow."""
    ana = analyzer(stage.axes)
    return tuple(ana.simplify(flat_index(access)) for access in accesses(stage))


@lru_cache(maxsize=4096)
def strides(stage: Stage, axis: Axis) -> tuple[Expr | None, ...]:
    """Elements between neighbours along `axis`, per access; None where that is not constant.

    The offsets are linear in the axis even beyond its range, so that axes may be joined.
    """
    bound = _bound_to(stage, axis)
    ana = analyzer([other for other in stage.axes if other is not axis])
    return tuple(
        None if variables(offset) & bound else stride(offset, axis.var, ana)
        for offset in offsets(stage)
    )


def crossing(stage: Stage, along: Axis, last: Axis) -> list[TensorLoad]:
    """Loads that are contiguous along one axis and move otherwise along the last one, each once.

    Left out are loads that must stay where they are: under a condition, or at an index that the
    point itself computes.
    """
    moves = zip(stage.point.loads(), strides(stage, along), strides(stage, last))
    across = [
        load for load, here, there in moves if constant(here) == 1 and constant(there) not in (0, 1)
    ]
    if not across:
        return []
    named = {var for var, _ in stage.point.binds}
    guarded = {
        tvm_ffi.StructuralKey(load)
        for expr in stage.point.exprs()
        for call in collect(expr, Call)
        if getattr(call.op, "name", "") == "prim.if_then_else"
        for load in collect(call, TensorLoad)
    }
    found: dict[object, TensorLoad] = {}
    for load in across:
        key = tvm_ffi.StructuralKey(load)
        if key not in guarded and not variables(load) & named:
            found.setdefault(key, load)
    return list(found.values())


def with_reciprocals(stage: Stage, scalars: set[Var]) -> Stage:
    """``a / b`` as ``a * (1 / b)`` where `b` is one number per row, read from `scalars`.

    One division per row is left. The result differs by a rounding, which is why only quotients by
    what the kernel itself has computed are rewritten, such as the sum of a softmax.
    """

    def per_row(expr: Expr) -> bool:
        loads = collect(expr, TensorLoad)
        own = {axis.var for axis in stage.axes}
        return (
            bool(loads)
            and all(load.source in scalars for load in loads)
            and not variables(expr) & own
        )

    def visit(quotient: tirx.Div) -> Expr:
        if "float" not in str(quotient.ty.dtype) or not per_row(quotient.b):
            return quotient
        return quotient.a * (tirx.const(1.0, quotient.ty.dtype) / quotient.b)

    return _with_code(stage, lambda expr: tvm_ffi.structural_map(expr, (tirx.Div, visit)))


Homes = Mapping[Var, tuple[Var, tuple[int, ...]]]
"""{buffer: (the flat buffer that stands for it, the dims that it keeps)}"""


def renamed(stage: Stage, old: Var, new: Var) -> Stage:
    """The stage with accesses to one buffer going to another of the same shape."""

    def move(access: TensorLoad | Write) -> tuple[Var, tuple[Expr, ...]]:
        buffer = buffer_of(access)
        return new if buffer.same_as(old) else buffer, tuple(access.indices)

    return _with_accesses(stage, move)


def relocated(stage: Stage, homes: Homes, row: Expr | None = None) -> Stage:
    """The stage with its accesses to the buffers in `homes` going there, to row `row` of each."""

    def move(access: TensorLoad | Write) -> tuple[Var, tuple[Expr, ...]]:
        buffer = buffer_of(access)
        if buffer not in homes:
            return buffer, tuple(access.indices)
        home, dims = homes[buffer]
        offset = tirx.const(0, "int64") if row is None else row
        for dim in dims:
            offset = offset * buffer.shape[dim] + access.indices[dim]
        return home, (offset,)

    return _with_accesses(stage, move)


def flattened(stage: Stage) -> Stage:
    """The stage with every access written as one offset, in the last index of its buffer."""
    ana = analyzer(stage.axes)

    def flat(access: TensorLoad | Write) -> tuple[Var, tuple[Expr, ...]]:
        if not access.indices:
            return buffer_of(access), ()
        zeros = (tirx.const(0, "int64"),) * (len(access.indices) - 1)
        return buffer_of(access), (*zeros, ana.simplify(flat_index(access)))

    return _with_accesses(stage, flat)


def _with_accesses(
    stage: Stage, new: Callable[[TensorLoad | Write], tuple[Var, tuple[Expr, ...]]]
) -> Stage:
    """The stage with every load and store at another buffer and other indices."""

    def visit(load: TensorLoad) -> Expr:
        buffer, indices = new(load)
        return buffer[indices] if indices else load

    def write(old: Write) -> Write:
        buffer, indices = new(old)
        return replace(old, buffer=buffer, indices=indices)

    moved = replace(
        stage,
        writes=tuple(map(write, stage.writes)),
        epilogue=_with_accesses(stage.epilogue, new) if stage.epilogue else None,
    )
    return _with_code(moved, lambda expr: tvm_ffi.structural_map(expr, (TensorLoad, visit)))


def _with_code(stage: Stage, new: Callable[[Expr], Expr]) -> Stage:
    """The stage with every expression of its code replaced; its epilogue stays."""
    binds = tuple((var, new(value)) for var, value in stage.point.binds)
    return replace(stage, point=Point(binds, tuple(map(new, stage.point.values))))


def _bound_to(stage: Stage, axis: Axis) -> set[Var]:
    """Scalars bound in the stage's code whose value depends on `axis`."""
    found: set[Var] = set()
    points = [stage.point] + ([stage.epilogue.point] if stage.epilogue else [])
    for var, value in (bind for point in points for bind in point.binds):
        if variables(value) & (found | {axis.var}):
            found.add(var)
    return found


def divides(stage: Stage, axis: Axis) -> bool:
    """Whether the stage divides integers that move along `axis` by one that is no constant.

    Processors have no vectors of such divisions, so that vectors of them are taken apart, element
    by element, quotient and remainder one by one. Indices of one offset may need no division.
    """
    stage = flattened(stage)
    moving = _bound_to(stage, axis) | {axis.var}
    points = [stage.point] + ([stage.epilogue.point] if stage.epilogue else [])
    return any(
        constant(node.b) is None and _is_integer(node) and variables(node) & moving
        for point in points
        for expr in point.exprs()
        for node in collect(expr, _DIVISIONS)
    )


def _is_integer(expr: Expr) -> bool:
    return str(expr.ty.dtype).startswith(("int", "uint"))


def mergeable(stage: Stage, outer: Axis, inner: Axis) -> bool:
    """Walking `outer` and `inner` as one axis keeps every access linear."""
    if {outer.var, inner.var} & (values_of(stage) | {var for var, _, _ in stage.limits}):
        return False
    ana = analyzer(stage.axes)
    for far, near in zip(strides(stage, outer), strides(stage, inner)):
        if far is None or near is None:
            return False
        if not ana.can_prove_equal(far, near * inner.extent):
            return False
    return True


@lru_cache(maxsize=1024)
def values_of(stage: Stage) -> frozenset[Var]:
    """Axes that are used as numbers, outside of indices."""
    found: set[Var] = set()
    exprs = list(stage.point.exprs())
    if stage.epilogue:
        exprs += stage.epilogue.point.exprs()
    exprs += [limit for _, _, limit in stage.limits]
    for expr in exprs:
        bare = tvm_ffi.structural_map(expr, (TensorLoad, lambda load: tirx.const(0, load.ty.dtype)))
        found |= variables(bare)
    return frozenset(found)


def vectorizable(stage: Stage, axis: Axis, parts: Callable[[Expr], list[Expr]]) -> bool:
    """All code of the stage works on vectors along `axis`; `parts` are what an expression runs as.

    TVM's vectorizer takes what it cannot vectorize apart statement by statement, which loses the
    scalars that other statements have bound: such code must not be given to it.
    """
    moving = _bound_to(stage, axis) | {axis.var}
    points = [stage.point] + ([stage.epilogue.point] if stage.epilogue else [])
    calls: list[Call] = []
    for expr in (expr for point in points for expr in point.exprs()):
        calls += [call for part in parts(expr) for call in collect(part, Call)]
    for call in calls:
        if call.op.name == "prim.if_then_else":
            if variables(call.args[0]) & moving:
                return False
        elif (
            call.op.name != "tirx.reinterpret"
            and not call.op.get_attr("TVectorizable")
            and any(variables(arg) & moving for arg in call.args)
        ):
            return False
    return True
