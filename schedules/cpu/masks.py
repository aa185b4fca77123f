"""Vectors of which only the first elements exist, loaded and stored under a mask.

    v[l] = a[i + l] if l < n else 0            a[i + l] = v[l] if l < n

Nothing past the n-th element is touched. Mask registers (AVX-512) do it at the price of a whole
vector; elsewhere LLVM would write out a branch for each lane.
"""

from __future__ import annotations

from collections.abc import Callable

from tvm import tirx
from tvm.ir import Call, Expr, TensorLoad, Var
from tvm_ffi import structural_map

from ..kernel.analysis import analyzer, collect, constant, flat_index, stride, substitute, variables
from ..kernel.contraction import Contraction, Operand, Output
from ..kernel.emit import VECTORIZED, allocate, block, index, loop
from .math import approximate

TYPES = ("float32", "float64", "int32", "int64")
"""What is moved under masks; narrower elements need more than the first AVX-512."""

Point = Callable[[Expr], dict[Var, Expr]]
"""What the axes of a contraction, and its sum, are at a lane."""


def first(count: Expr, lanes: int) -> Expr:
    """The mask of the first `count` lanes: none below 1, all from `lanes` on."""
    lane = tirx.Ramp(tirx.const(0, "int32"), tirx.const(1, "int32"), lanes)
    return lane < tirx.Broadcast(tirx.Cast("int32", count), lanes)


def load(element: TensorLoad, mask: Expr, lanes: int) -> Expr:
    """The vector that begins with `element`, zero where the mask is not set."""
    dtype = str(element.ty.dtype)
    zero = tirx.Broadcast(tirx.const(0, dtype), lanes)
    name, address = "llvm.masked.load", tirx.address_of(element)
    return tirx.call_llvm_intrin(f"{dtype}x{lanes}", name, address, mask, zero)


def store(element: TensorLoad, value: Expr, mask: Expr) -> tirx.Stmt:
    """Store a vector from where `element` is on, where the mask is set."""
    address = tirx.address_of(element)
    return tirx.Evaluate(tirx.call_llvm_intrin("void", "llvm.masked.store", value, address, mask))


def whole(line: Var, first: int, lanes: int) -> Expr:
    """A vector of a buffer of one dim."""
    return line[tirx.Ramp(index(first), index(1), lanes)]


def results_fit(total: Contraction) -> bool:
    """Whether results can be stored, and what their epilogue loads be loaded, under a mask."""
    return len(total.cols) == 1 and all(_output_fits(total, out) for out in total.outputs)


def operand_fits(total: Contraction, operand: Operand) -> bool:
    """Whether vectors of an operand along the columns can be loaded in place under a mask."""
    return operand.load is not None and operand.source is None and _fits(total, operand.load)


def _output_fits(total: Contraction, out: Output) -> bool:
    loads = _along(total, out)
    guarded = any(getattr(c.op, "name", "") == _CONDITIONAL for c in collect(out.value, Call))
    whole = all(len(collect(load, TensorLoad)) == 1 and _fits(total, load) for load in loads)
    return _fits(total, out) and whole and not (guarded and loads)


_CONDITIONAL = "prim.if_then_else"


def _along(total: Contraction, out: Output) -> list[TensorLoad]:
    """What the epilogue loads along the columns."""
    (column,) = total.cols
    return [load for load in collect(out.value, TensorLoad) if column.var in variables(load)]


def _fits(total: Contraction, access: TensorLoad | Output) -> bool:
    """Whether the access moves by one element from column to column."""
    buffer = access.source if isinstance(access, TensorLoad) else access.buffer
    if len(total.cols) != 1 or str(buffer.ty.dtype) not in TYPES:
        return False
    axes = (*total.batch, *total.rows, *total.cols, *total.reduce)
    step = stride(flat_index(access), total.cols[0].var, analyzer(axes, buffer.shape))
    return step is not None and constant(step) == 1


def store_results(total: Contraction, at: Point, mask: Expr, lanes: int) -> tirx.Stmt:
    """The epilogue of one vector of sums and its stores, all under a mask."""
    return block(*(_result(total, out, at, mask, lanes) for out in total.outputs))


def _result(total: Contraction, out: Output, at: Point, mask: Expr, lanes: int) -> tirx.Stmt:
    start = at(index(0))
    lines: list[tuple[TensorLoad, Var]] = []
    parts: list[tirx.Stmt] = []
    for element in _along(total, out):
        line = allocate([lanes], str(element.ty.dtype), "line")
        value = load(substitute(element, start), mask, lanes)
        lines.append((element, line))
        parts += [tirx.AllocBuffer(line), _put(line, value, lanes)]
    result = allocate([lanes], str(out.buffer.ty.dtype), "result")

    def one(lane: Expr) -> tirx.Stmt:
        def visit(found: TensorLoad) -> Expr:
            own = next((line for element, line in lines if element.same_as(found)), None)
            return found if own is None else own[lane]

        value = structural_map(out.value, (TensorLoad, visit)) if lines else out.value
        names, value = approximate(substitute(value, at(lane)))
        return block(
            *(tirx.Bind(var, expr) for var, expr in names),
            tirx.BufferStore(result, value, [lane]),
        )

    where = tirx.BufferLoad(out.buffer, [substitute(i, start) for i in out.indices])
    return block(
        *parts,
        tirx.AllocBuffer(result),
        loop(lanes, one, VECTORIZED, "lane"),
        store(where, whole(result, 0, lanes), mask),
    )


def _put(line: Var, value: Expr, lanes: int) -> tirx.Stmt:
    return tirx.BufferStore(line, value, [tirx.Ramp(index(0), index(1), lanes)])
