"""What a kernel costs, in cycles of one core: loads, indices, memory, and to multiply matrices.

Virtual tensors ask: a loader and its reader as two kernels, or as one? Only what differs between
the two is priced: every load by how it moves along the axis that vectors run along, times how often
it is done; every buffer by its bytes, at the bandwidth of the memory level that it fits in. The
figures are of out-of-order cores in general (two loads a cycle, a gather an element at a time).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from tvm import tirx
from tvm.ir import Call, Expr, TensorLoad

from .cpu.plan import plan
from .cpu.sections import sections
from .cpu.staged import as_stages
from .cpu.turned import crosses
from .kernel.access import accesses, strides
from .kernel.analysis import (
    Axis,
    analyzer,
    buffer_of,
    collect,
    constant,
    flat_index,
    stride,
    substitute,
    variables,
)
from .kernel.contraction import Contraction, Operand, run_length
from .kernel.read_contraction import contraction
from .kernel.stages import Stage
from .kernel.view import view
from .levels import LINE_BYTES
from .memory import Amount, Memory
from .rule import Declined, Kernel

CALL = 500.0
"""Calling a kernel from the virtual machine: 0.2 us, measured."""

SINGLE, FAR, DIVISION, SHIFT, CONDITION = 1.0, 4.0, 1.5, 0.3, 2.0
"""An element loaded alone; one of many that are pages apart; a division in an index, by a power of
two; a branch."""

EXTRACTED = 3.0
"""Times as dear as loading it: to store an element of a vector alone (measured: 3 cycles near, 9
where elements are pages apart)."""

PAGE_ELEMENTS, STREAMS = 1024, 16
"""A stride from which on elements are on different pages, and how many are too many for L1."""

STAGED = 0.1
"""To copy an element into a stage; twice that if tiles then find channels far apart in it."""

TILE, PANEL = 8, 48
"""Rows and columns that a register tile of a product is taken to have."""


def cycles(kernel: Kernel, memory: Memory) -> Amount:
    """The price, at the sizes of `memory`, of a kernel that a rule but the last one matches."""
    total = CALL + _operands(kernel, memory)
    found = contraction(kernel)
    if isinstance(found, Contraction) and found.cols:
        apart = sections(kernel)
        if not isinstance(apart, Declined):
            return CALL + sum(cycles(part, memory) - CALL for part in apart)
        return total + _product(kernel, found, memory)
    seen = as_stages(kernel)
    if isinstance(seen, Declined):
        return total
    for nest in plan(seen.stages, memory.arch):
        for number, rows, one in zip(nest.stages, nest.rows, nest.plans):
            stage = seen.stages[number]
            inner = [axis for p, axis in enumerate(stage.spatial) if p not in rows]
            along = stage.reduce[-1] if one.mode == "lanes" else inner[-1] if inner else None
            turned = one.mode in ("transpose", "interleave")
            total += _stage(stage, along, 1 if one.mode == "scalar" else one.lanes, turned, memory)
    return total


def _stage(stage: Stage, along: Axis | None, lanes: int, turned: bool, memory: Memory) -> Amount:
    """All loads and stores of a stage whose vectors run along an axis."""
    vector = 2.0 / lanes if turned else 1.0 / lanes
    steps = [None] * len(accesses(stage)) if along is None else strides(stage, along)
    known = [None if step is None else constant(step) for step in steps]
    each = [vector if turned else _element(step, along, vector, memory) for step in known]
    each += [_indices(expr, stage.axes, memory, along) for expr in stage.point.exprs()]
    return memory.size(stage.axes) * sum(each)


def _element(step: int | None, along: Axis | None, vector: float, memory: Memory) -> Amount:
    """What an element costs that is `step` away from its neighbour along an axis."""
    if step in (0, 1):
        return vector
    far = step is not None and abs(step) >= PAGE_ELEMENTS
    if not far or along is None:
        return SINGLE
    return np.where(memory.extent(along.extent) >= STREAMS, FAR, SINGLE)


def _indices(expr: Expr, axes: Iterable[Axis], memory: Memory, along: Axis | None = None) -> Amount:
    """The index arithmetic in an expression that keeps it from running in vectors.

    What does not move along an axis is done once for it, what moves along none of `axes` once.
    """
    conditions = [c for c in collect(expr, Call) if getattr(c.op, "name", "") == _CONDITIONAL]
    nodes = [(call.args[0], CONDITION) for call in conditions]
    nodes += [(node, _index_op(node)) for node in _moving(expr, axes)]
    if along is None:
        return sum(cost for _, cost in nodes)
    still = 1 / np.maximum(1, memory.extent(along.extent))
    return sum(cost * (1 if along.var in variables(node) else still) for node, cost in nodes)


_CONDITIONAL = "prim.if_then_else"


def _product(kernel: Kernel, found: Contraction, memory: Memory) -> Amount:
    """A matrix product or convolution: multiplying, its operands, and what its epilogue loads."""
    lanes = memory.arch.vector_lanes("float32")
    columns = memory.size(found.cols)
    passes = np.ceil(columns / PANEL)
    left = (*found.batch, *found.rows, *found.reduce)
    right = (*found.batch, *found.cols, *found.reduce)
    points = memory.size((*found.batch, *found.rows, *found.cols, *found.reduce))
    total = points / (lanes * memory.arch.fma_units)
    total += _broadcast(found.lhs, left, found.reduce, passes, memory)
    if found.constant_rhs(kernel) is None:
        total += memory.size(right) * _packed(
            found.rhs, right, (found.cols[-1], *found.reduce), lanes, memory
        )
    spatial = (*found.batch, *found.rows, *found.cols)
    turned = crosses(found)
    for out in found.outputs:
        loads = collect(out.value, TensorLoad)
        steps = [_step(flat_index(load), found.cols[-1], spatial) for load in loads]
        cost = sum(_element(step, found.cols[-1], 1.0 / lanes, memory) for step in steps)
        step = _step(flat_index(out), found.cols[-1], spatial)
        if turned:
            cost = (1 + 2 * (2 + len(loads))) / lanes
        else:
            cost += (
                1.0 / lanes
                if step == 1
                else EXTRACTED * _element(step, found.cols[-1], 1.0, memory)
            )
        moving = _indices(out.value, spatial, memory, found.cols[-1])
        total += memory.size(spatial) * (cost + moving)
    for block in found.after:
        total += memory.size(block.axes) * (
            2.0 / lanes + _indices(block.stores[0].value, block.axes, memory)
        )
    return total + sum(2 * memory.passed(buffer) for buffer in found.kept)


def _broadcast(
    operand: Operand,
    axes: tuple[Axis, ...],
    reduce: tuple[Axis, ...],
    passes: Amount,
    memory: Memory,
) -> Amount:
    """An operand of which single elements are read, over and over: few layouts of it matter."""
    elements = memory.size(axes)
    if operand.source is not None:
        block = operand.source
        loads = collect(block.stores[0].value, TensorLoad)
        each = sum(_staged(flat_index(load), block.axes, memory) for load in loads)
        return memory.size(block.axes) * (
            STAGED + each / max(1, len(loads)) + _divisions(block.stores[0].value, block.axes)
        )
    if operand.load is None or not reduce:
        return elements * passes * CONDITION
    offset = flat_index(operand.load)
    near = any(_first_step(offset, axis, axes) == 1 for axis in axes if axis.size != 1)
    inner, outer = ({axis.var for axis in some} for some in (reduce, axes))
    runs = run_length(operand, reduce[-1]) is not None
    total = 0.0 if near else 0.15 * elements
    for kind in _INDEX_OPS:
        for node in collect(operand.value, kind):
            used = variables(node) & outer
            mixed = used & inner and used - inner
            shared = 1 if mixed else TILE if used & inner and not runs else memory.size(reduce)
            total += elements * _index_op(node) / shared
    return (total + _far_lines(operand.load, axes, reduce, memory)) * passes


def _staged(offset: Expr, axes: Sequence[Axis], memory: Memory) -> Amount:
    """What an element costs that is copied in the order in which its source lies in memory."""
    *others, last = axes
    step = _step(offset, last, axes)
    if step != 1 and any(_step(offset, axis, axes) == 1 for axis in others):
        return 2 * STAGED
    return _element(step, last, STAGED, memory)


def _far_lines(
    load: TensorLoad, axes: tuple[Axis, ...], reduce: tuple[Axis, ...], memory: Memory
) -> Amount:
    """Waiting for the lines of columns too long for L1, a page from each to the next.

    Every tile of rows goes down them once, and no prefetcher foresees it.
    """
    offset = flat_index(load)
    far = [axis for axis in reduce if abs(_first_step(offset, axis, axes) or 0) >= PAGE_ELEMENTS]
    lines = memory.size(far)
    tiles = memory.size(axes) / memory.size(reduce) / TILE
    long = lines * LINE_BYTES > memory.arch.l1_bytes / 2
    return long * tiles * lines * memory.latency(load.source)


def _first_step(offset: Expr, axis: Axis, axes: Iterable[Axis]) -> int | None:
    """Elements between the first two indices of an axis, the others being 0."""
    origin = {other.var: tirx.const(0, other.var.ty.dtype) for other in axes}
    ahead = {**origin, axis.var: tirx.const(1, axis.var.ty.dtype)}
    return constant(analyzer(()).simplify(substitute(offset, ahead) - substitute(offset, origin)))


_INDEX_OPS = (tirx.FloorDiv, tirx.FloorMod, tirx.Select)


def _divisions(expr: Expr, axes: Iterable[Axis]) -> float:
    """Cycles of the index arithmetic in an expression that moves along some of the axes."""
    return sum(_index_op(node) for node in _moving(expr, axes))


def _moving(expr: Expr, axes: Iterable[Axis]) -> list[Any]:
    """Divisions and selections that depend on an axis; those of free sizes alone are done once."""
    moved = {axis.var for axis in axes}
    nodes = [node for kind in _INDEX_OPS for node in collect(expr, kind)]
    return [node for node in nodes if variables(node) & moved]


def _index_op(node: Expr) -> float:
    """A division, or the shift, mask or selection that it is instead."""
    divisor = constant(node.b) if isinstance(node, tirx.FloorDiv | tirx.FloorMod) else 1
    return DIVISION if divisor is None or divisor & (divisor - 1) else SHIFT


def _packed(
    operand: Operand, axes: tuple[Axis, ...], along: Iterable[Axis], lanes: int, memory: Memory
) -> Amount:
    """Cycles per element to copy an operand into panels: vectors along columns or along the sum."""
    loads = collect(operand.value, TensorLoad)
    vectors = any(all(_step(flat_index(load), axis, axes) == 1 for load in loads) for axis in along)
    return (2.0 / lanes if vectors else SINGLE) + _indices(operand.value, axes, memory)


def _step(offset: Expr, axis: Axis, axes: Iterable[Axis]) -> int | None:
    """Elements from one index of the axis to the next, if that is one number."""
    step = stride(offset, axis.var, analyzer(axes))
    return None if step is None else constant(step)


def _operands(kernel: Kernel, memory: Memory) -> Amount:
    """Every parameter once, as far as it is read or written, at the bandwidth of its level."""
    seen = view(kernel.func)
    if isinstance(seen, Declined):
        return 0.0
    touched: dict[object, Amount] = {}
    for block in seen.blocks:
        for access in (*block.loads, *block.stores):
            buffer = buffer_of(access)
            if buffer in seen.buffers:
                moving = set().union(*map(variables, access.indices))
                points = memory.size(axis for axis in block.axes if axis.var in moving)
                read = np.minimum(points, memory.elements(buffer))
                touched[buffer] = np.maximum(touched.get(buffer, 0), read)
    return sum(
        memory.passed(param, touched[param])
        for position, param in enumerate(kernel.func.params)
        if param in touched and position not in kernel.constant_args
    )
