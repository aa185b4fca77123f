"""Boxes of a detector: NonMaxSuppression."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from tvm import relax, te, tirx
from tvm.ir import Expr, Var
from tvm.script.ir_builder import IRBuilder
from tvm.script.ir_builder import tirx as T

from ..builder import Call, Converter, DeclinedError, Result
from .sizes import expr, int64, kernel, matched, out_of

FOUND, LEFT, KEPT, PLACE, CHILD = range(5)
"""Numbers that the kernel counts with: rows written, candidates in the heap, boxes of the class
kept so far, and a place, in the heap or among those boxes, with the one below it in the heap."""
CORNERS = 4
"""Numbers of a box, after which its area is kept."""


def _nms(call: Call) -> Result:
    """For each batch and class: one box after another, the best first, is kept unless it overlaps
    one that is kept too much.

    Of boxes with equal scores the first one is better. One kernel writes all that it finds, of
    which the number is known then. A heap orders the boxes, as only the first few may be wanted.
    """
    if call.shape(0)[:2] != (call.shape(1)[0], call.shape(1)[2]):
        raise DeclinedError("boxes and scores of different numbers")
    count = call.scalar(2) if call.has(2) else 0
    numbers = [
        _one(call, 2, "int64", 0),
        _one(call, 3, "float32", 0.0),
        _one(call, 4, "float32", -np.inf),
    ]
    (size, _) = out_of(call)

    def compute(boxes: te.Tensor, scores: te.Tensor, *limits: te.Tensor) -> list[te.Tensor]:
        batch, classes, each = map(expr, scores.shape)
        most = each if count is None else tirx.max(tirx.min(each, int64(int(count))), int64(0))
        return te.extern(
            [(batch * classes * most, int64(3)), (1,), (each,), (most, CORNERS + 1)],
            [boxes, scores, *limits],
            lambda read, written: _kernel(call, read, written),
            dtype=["int64", "int64", "int64", "float32"],
            name="non_max_suppression",
        )

    made = call.emit(
        kernel(call, compute, [call.tensor(0), call.tensor(1), *numbers], "non_max_suppression")
    )
    counts = call.emit(relax.TupleGetItem(made, 1))
    matched(call, counts, [size])
    found = call.emit(relax.TupleGetItem(made, 0))  # here: FuseOps moves its reader to it
    end = [call.prim(size)]
    return relax.op.strided_slice(found, [0], [call.prim(0)], end, assume_inbound=True)


def _one(call: Call, index: int, dtype: str, default: float) -> relax.Expr:
    if not call.has(index):
        return relax.const(np.array([default], dtype), dtype)
    return call.emit(relax.op.reshape(call.tensor(index), (1,)))


def _kernel(call: Call, read: Sequence[Var], written: Sequence[Var]) -> tirx.Stmt:
    """`heap` holds the candidates of a class, `kept` the boxes that were taken and their areas."""
    boxes, scores, most, overlap, least = read
    found, total, heap, kept = written
    batch, classes, each = map(expr, scores.shape)

    with IRBuilder() as ib:
        with T.seq_scope():
            numbers = T.alloc_buffer((5,), "int64", scope="local")

            def put(buffer: Var, value: Expr, *at: Any) -> None:
                T.buffer_store(buffer, value, [int64(i) if isinstance(i, int) else i for i in at])

            def number(which: int) -> Expr:
                return numbers[int64(which)]

            def sink(b: Expr, c: Expr, place: Expr) -> None:
                """What lies at a place of the heap goes down until none below it is better."""
                moved = T.bind(heap[place])
                put(numbers, place, PLACE)
                put(numbers, place * 2 + 1, CHILD)
                with T.While(number(CHILD) < number(LEFT)):
                    left = T.bind(number(CHILD))
                    right = T.bind(tirx.min(left + 1, number(LEFT) - 1))
                    swap = _better(scores, b, c, heap[right], heap[left])
                    best = T.bind(tirx.Select(swap, right, left))
                    rises = T.bind(_better(scores, b, c, heap[best], moved))
                    with T.If(rises), T.Then():
                        put(heap, heap[best], number(PLACE))
                        put(numbers, best, PLACE)
                    put(numbers, tirx.Select(rises, best * 2 + 1, number(LEFT)), CHILD)
                put(heap, moved, number(PLACE))

            def consider(b: Expr, c: Expr, box: Expr) -> None:
                """Keep a box, unless it overlaps one that is kept; PLACE is beyond KEPT then."""
                corners = [T.bind(one) for one in _corners(call, boxes, b, box)]
                area = T.bind(_area(corners))
                put(numbers, int64(0), PLACE)
                with T.While(number(PLACE) < number(KEPT)):
                    place = T.bind(number(PLACE))
                    other = [kept[place, int64(k)] for k in range(CORNERS)]
                    ratio = _ratio(corners, area, other, kept[place, int64(CORNERS)])
                    end = number(KEPT) + 1
                    put(numbers, tirx.Select(ratio > overlap[int64(0)], end, place + 1), PLACE)
                with T.If(number(PLACE).equal(number(KEPT))), T.Then():
                    for k, value in enumerate((*corners, area)):
                        put(kept, value, number(KEPT), k)
                    for k, value in enumerate((b, c, box)):
                        put(found, value, number(FOUND), k)
                    put(numbers, number(KEPT) + 1, KEPT)
                    put(numbers, number(FOUND) + 1, FOUND)

            put(numbers, int64(0), FOUND)
            with T.serial(0, batch) as b, T.serial(0, classes) as c:
                put(numbers, int64(0), LEFT)
                put(numbers, int64(0), KEPT)
                with T.serial(0, each) as i:
                    passes = _passes(call, scores[b, c, i], least[int64(0)])
                    with T.If(passes), T.Then():
                        put(heap, i, number(LEFT))
                        put(numbers, number(LEFT) + 1, LEFT)
                half = T.bind(number(LEFT) // 2)
                with T.serial(0, half) as i:
                    sink(b, c, half - 1 - i)
                limit = T.bind(tirx.min(each, most[int64(0)]))
                with T.While(tirx.And(number(LEFT) > 0, number(KEPT) < limit)):
                    first = T.bind(heap[int64(0)])
                    put(numbers, number(LEFT) - 1, LEFT)
                    put(heap, heap[number(LEFT)], 0)
                    sink(b, c, int64(0))
                    consider(b, c, first)
            put(total, number(FOUND), 0)
        return ib.get()


def _better(scores: Var, b: Expr, c: Expr, one: Expr, other: Expr) -> Expr:
    """Whether a box comes before another."""
    this, that = scores[b, c, one], scores[b, c, other]
    return tirx.Or(this > that, tirx.And(this.equal(that), one < other))


def _passes(call: Call, score: Expr, least: Expr) -> Expr:
    return score > least if call.has(4) else tirx.const(True, "bool")


def _corners(call: Call, boxes: Var, b: Expr, box: Expr) -> list[Expr]:
    """The lower ends of both sides of a box, and the upper ones."""
    ends = []
    for k in range(2):
        first, last = boxes[b, box, int64(k)], boxes[b, box, int64(k + 2)]
        if call.attr("center_point_box", 0):  # a middle and a size
            half = last / tirx.const(2.0, "float32")
            ends.append((first - half, first + half))
        else:  # two corners, either of them first
            ends.append((tirx.min(first, last), tirx.max(first, last)))
    return [one for pair in zip(*ends) for one in pair]


def _area(corners: Sequence[Expr]) -> Expr:
    top, left, bottom, right = corners
    return (bottom - top) * (right - left)


def _ratio(corners: Sequence[Expr], area: Expr, others: Sequence[Expr], other: Expr) -> Expr:
    """Area of what two boxes share, of that of both together; 0 where one has no area."""
    zero = tirx.const(0.0, "float32")
    low = [tirx.max(a, b) for a, b in zip(corners[:2], others[:2])]
    high = [tirx.min(a, b) for a, b in zip(corners[2:], others[2:])]
    shared = [tirx.max(zero, b - a) for a, b in zip(low, high)]
    inside = T.bind(shared[0] * shared[1])
    both = T.bind(area + other - inside)
    real = tirx.And(both > zero, tirx.And(area > zero, other > zero))
    return tirx.Select(real, inside / both, zero)


CONVERTERS: dict[str, Converter] = {"NonMaxSuppression": _nms}
