"""What a kernel costs beside its arithmetic, in cycles of one core: loads, indices, memory.

Virtual tensors ask: a loader and its reader as two kernels, or as one? Only what differs between
the two is priced: every load by how it moves along the axis that vectors run along, times how often
it is done; every buffer by its bytes, at the bandwidth of the memory level that it fits in. The
figures are of out-of-order cores in general (two loads a cycle, a gather an element at a time).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from tvm import tirx
from tvm.ir import Call, Expr, TensorLoad

from tvmext.arch import CpuArch, dtype_bits

from .cpu.plan import plan
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
from .kernel.contraction import Contraction, Operand
from .kernel.read_contraction import contraction
from .kernel.stages import Stage
from .kernel.view import view
from .levels import LINE_BYTES
from .rule import Declined, Kernel

UNKNOWN_DIM = 64
"""The size that a symbolic dim is taken for."""

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

TILE, PANEL = 8, 48
"""Rows and columns that a register tile of a product is taken to have."""


def cycles(kernel: Kernel, arch: CpuArch) -> float:
    """The price of a kernel that a rule other than the last one matches."""
    total = CALL + _memory(kernel, arch)
    found = contraction(kernel)
    if isinstance(found, Contraction) and found.cols:
        return total + _product(kernel, found, arch)
    seen = as_stages(kernel)
    if isinstance(seen, Declined):
        return total
    for nest in plan(seen.stages, arch):
        for number, rows, one in zip(nest.stages, nest.rows, nest.plans):
            stage = seen.stages[number]
            inner = [axis for p, axis in enumerate(stage.spatial) if p not in rows]
            along = stage.reduce[-1] if one.mode == "lanes" else inner[-1] if inner else None
            turned = one.mode in ("transpose", "interleave")
            total += _stage(stage, along, 1 if one.mode == "scalar" else one.lanes, turned)
    return total


def _stage(stage: Stage, along: Axis | None, lanes: int, turned: bool) -> float:
    """All loads and stores of a stage whose vectors run along an axis."""
    vector = 2.0 / lanes if turned else 1.0 / lanes
    steps = [None] * len(accesses(stage)) if along is None else strides(stage, along)
    known = [None if step is None else constant(step) for step in steps]
    each = [vector if turned else _element(step, along, vector) for step in known]
    each += [_indices(expr, along) for expr in stage.point.exprs()]
    return _size(stage.axes) * sum(each)


def _element(step: int | None, along: Axis | None, vector: float) -> float:
    """What an element costs that is `step` away from its neighbour along an axis."""
    if step in (0, 1):
        return vector
    far = step is not None and abs(step) >= PAGE_ELEMENTS
    return FAR if far and along is not None and (along.size or UNKNOWN_DIM) >= STREAMS else SINGLE


def _indices(expr: Expr, along: Axis | None = None) -> float:
    """The index arithmetic in an expression that keeps it from running in vectors.

    What does not move along an axis is done once for it.
    """
    conditions = [c for c in collect(expr, Call) if getattr(c.op, "name", "") == _CONDITIONAL]
    nodes = [(call.args[0], CONDITION) for call in conditions]
    nodes += [(node, _index_op(node)) for kind in _INDEX_OPS for node in collect(expr, kind)]
    still = 1 if along is None else 1 / max(1, _known(along.extent))
    return sum(
        cost * (1 if along is None or along.var in variables(node) else still)
        for node, cost in nodes
    )


_CONDITIONAL = "prim.if_then_else"


def _product(kernel: Kernel, found: Contraction, arch: CpuArch) -> float:
    """The operands of a matrix product or convolution, and what its epilogue loads."""
    lanes = arch.vector_lanes("float32")
    columns = _size(found.cols)
    passes = math.ceil(columns / PANEL)
    left = (*found.batch, *found.rows, *found.reduce)
    right = (*found.batch, *found.cols, *found.reduce)
    total = _broadcast(found.lhs, left, found.reduce, passes, arch)
    if found.constant_rhs(kernel) is None:
        total += _size(right) * _packed(found.rhs, right, (found.cols[-1], *found.reduce), lanes)
    spatial = (*found.batch, *found.rows, *found.cols)
    turned = crosses(found)
    for out in found.outputs:
        loads = collect(out.value, TensorLoad)
        steps = [_step(flat_index(load), found.cols[-1], spatial) for load in loads]
        cost = sum(_element(step, found.cols[-1], 1.0 / lanes) for step in steps)
        step = _step(flat_index(out), found.cols[-1], spatial)
        if turned:
            cost = (1 + 2 * (2 + len(loads))) / lanes
        else:
            cost += 1.0 / lanes if step == 1 else EXTRACTED * _element(step, found.cols[-1], 1.0)
        total += _size(spatial) * (cost + _indices(out.value))
    for block in found.after:
        total += _size(block.axes) * (2.0 / lanes + _indices(block.stores[0].value))
    return total + sum(2 * _passed(buffer, arch) for buffer in found.kept)


def _broadcast(
    operand: Operand,
    axes: tuple[Axis, ...],
    reduce: tuple[Axis, ...],
    passes: int,
    arch: CpuArch,
) -> float:
    """An operand of which single elements are read, over and over: few layouts of it matter."""
    elements = _size(axes)
    if operand.source is not None:
        block = operand.source
        last = block.axes[-1]
        loads = collect(block.stores[0].value, TensorLoad)
        steps = [_step(flat_index(load), last, block.axes) for load in loads]
        each = sum(_element(step, last, 0.1) for step in steps) / max(1, len(steps))
        return _size(block.axes) * (0.1 + each + _divisions(block.stores[0].value))
    if operand.load is None or not reduce:
        return elements * passes * CONDITION
    offset = flat_index(operand.load)
    near = any(_first_step(offset, axis, axes) == 1 for axis in axes if axis.size != 1)
    inner, outer = ({axis.var for axis in some} for some in (reduce, axes))
    total = 0.0 if near else 0.15 * elements
    for kind in _INDEX_OPS:
        for node in collect(operand.value, kind):
            used = variables(node) & outer
            mixed = used & inner and used - inner
            shared = 1 if mixed else TILE if used & inner else _size(reduce)
            total += elements * _index_op(node) / shared
    return (total + _far_lines(operand.load, axes, reduce, arch)) * passes


def _far_lines(
    load: TensorLoad, axes: tuple[Axis, ...], reduce: tuple[Axis, ...], arch: CpuArch
) -> float:
    """Waiting for the lines of columns too long for L1, a page from each to the next.

    Every tile of rows goes down them once, and no prefetcher foresees it.
    """
    offset = flat_index(load)
    far = [axis for axis in reduce if abs(_first_step(offset, axis, axes) or 0) >= PAGE_ELEMENTS]
    lines = _size(far)
    if lines * LINE_BYTES <= arch.l1_bytes / 2:
        return 0.0
    tiles = _size(axes) / _size(reduce) / TILE
    return tiles * lines * _latency(load.source, arch)


def _first_step(offset: Expr, axis: Axis, axes: Iterable[Axis]) -> int | None:
    """Elements between the first two indices of an axis, the others being 0."""
    origin = {other.var: tirx.const(0, other.var.ty.dtype) for other in axes}
    ahead = {**origin, axis.var: tirx.const(1, axis.var.ty.dtype)}
    return constant(analyzer(()).simplify(substitute(offset, ahead) - substitute(offset, origin)))


_INDEX_OPS = (tirx.FloorDiv, tirx.FloorMod, tirx.Select)


def _divisions(expr: Expr) -> float:
    """Cycles of the index arithmetic in an expression."""
    return sum(_index_op(node) for kind in _INDEX_OPS for node in collect(expr, kind))


def _index_op(node: Expr) -> float:
    """A division, or the shift, mask or selection that it is instead."""
    divisor = constant(node.b) if isinstance(node, tirx.FloorDiv | tirx.FloorMod) else 1
    return DIVISION if divisor is None or divisor & (divisor - 1) else SHIFT


def _packed(operand: Operand, axes: tuple[Axis, ...], along: Iterable[Axis], lanes: int) -> float:
    """Cycles per element to copy an operand into panels: vectors along columns or along the sum."""
    loads = collect(operand.value, TensorLoad)
    vectors = any(all(_step(flat_index(load), axis, axes) == 1 for load in loads) for axis in along)
    return (2.0 / lanes if vectors else SINGLE) + _indices(operand.value)


def _step(offset: Expr, axis: Axis, axes: Iterable[Axis]) -> int | None:
    """Elements from one index of the axis to the next, if that is one number."""
    step = stride(offset, axis.var, analyzer(axes))
    return None if step is None else constant(step)


def _size(axes: Iterable[Axis]) -> int:
    return math.prod(_known(axis.extent) for axis in axes)


def _known(extent: Expr) -> int:
    """A size, with every dim that is known at run time only taken for the same one."""
    size = constant(extent)
    if size is None:
        unknown = {var: tirx.const(UNKNOWN_DIM, var.ty.dtype) for var in variables(extent)}
        size = constant(analyzer(()).simplify(substitute(extent, unknown)))
    return UNKNOWN_DIM if size is None else size


def _memory(kernel: Kernel, arch: CpuArch) -> float:
    """Every parameter once, as far as it is read or written, at the bandwidth of its level."""
    seen = view(kernel.func)
    if isinstance(seen, Declined):
        return 0.0
    touched: dict[object, int] = {}
    for block in seen.blocks:
        points = _size(block.axes)
        for access in (*block.loads, *block.stores):
            buffer = buffer_of(access)
            if buffer in seen.buffers:
                touched[buffer] = max(touched.get(buffer, 0), min(points, _elements(buffer)))
    return sum(
        _passed(param, arch, touched[param])
        for position, param in enumerate(kernel.func.params)
        if param in touched and position not in kernel.constant_args
    )


def _passed(buffer: Any, arch: CpuArch, elements: int | None = None) -> float:
    """To read or write a buffer once, or some elements of it, from the level that it fits in."""
    size = _bytes(buffer, elements)
    return size / _bandwidth(size, arch)


def _bytes(buffer: Any, elements: int | None = None) -> float:
    count = _elements(buffer) if elements is None else elements
    return count * dtype_bits(str(buffer.dtype)) / 8


def _elements(buffer: Any) -> int:
    return math.prod(_known(dim) for dim in buffer.shape)


def _bandwidth(size: float, arch: CpuArch) -> float:
    """Bytes a cycle of the level that a buffer fits in."""
    if size <= arch.l2_bytes / 2:
        return 32.0
    return 10.0 if size <= arch.l3_bytes / 2 else arch.dram_gb_s / arch.ghz


def _latency(buffer: Any, arch: CpuArch) -> float:
    """Cycles until a line is there, from the level that a buffer fits in (Zen 4: 14, 50, 250)."""
    size = _bytes(buffer)
    if size <= arch.l2_bytes / 2:
        return 14.0
    return 50.0 if size <= arch.l3_bytes / 2 else 250.0
