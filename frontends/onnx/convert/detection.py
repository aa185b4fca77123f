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

FOUND, LEFT, BEST = range(3)
"""Numbers that the kernel counts with: boxes found, candidates left, place of the best of them."""


def _nms(call: Call) -> Result:
    """For each batch and class: the best box left, then without those that overlap it too much.

    Of boxes with equal scores the first one is better. One kernel writes all that it finds, of
    which the number is known then.
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
            [(batch * classes * most, int64(3)), (3,), (each,)],
            [boxes, scores, *limits],
            lambda read, written: _kernel(call, read, written),
            dtype=["int64"] * 3,
            name="non_max_suppression",
        )

    made = call.emit(
        kernel(call, compute, [call.tensor(0), call.tensor(1), *numbers], "non_max_suppression")
    )
    counts = call.emit(relax.TupleGetItem(made, 1))
    matched(call, call.emit(relax.op.strided_slice(counts, [0], [0], [1])), [size])
    found = call.emit(relax.TupleGetItem(made, 0))  # here: FuseOps moves its reader to it
    end = [call.prim(size)]
    return relax.op.strided_slice(found, [0], [call.prim(0)], end, assume_inbound=True)


def _one(call: Call, index: int, dtype: str, default: float) -> relax.Expr:
    if not call.has(index):
        return relax.const(np.array([default], dtype), dtype)
    return call.emit(relax.op.reshape(call.tensor(index), (1,)))


def _kernel(call: Call, read: Sequence[Var], written: Sequence[Var]) -> tirx.Stmt:
    """`rest` holds the candidates of a class in the order of the boxes."""
    boxes, scores, most, overlap, least = read
    found, numbers, rest = written
    batch, classes, each = map(expr, scores.shape)
    corners = not call.attr("center_point_box", 0)

    def put(buffer: Var, value: Expr, *at: Any) -> None:
        T.buffer_store(buffer, value, [int64(i) if isinstance(i, int) else i for i in at])

    def number(which: int) -> Expr:
        return numbers[int64(which)]

    def keep(b: Expr, c: Expr, box: Expr, left: int, best: int) -> None:
        """One more candidate; it is the best one so far if its score is larger."""
        first = number(left).equal(int64(0))
        other = T.bind(tirx.Select(first, box, rest[number(best)]))
        put(rest, box, number(left))
        better = tirx.Or(first, scores[b, c, box] > scores[b, c, other])
        put(numbers, tirx.Select(better, number(left), number(best)), best)
        put(numbers, number(left) + int64(1), left)

    def one(b: Expr, c: Expr) -> None:
        put(numbers, int64(0), LEFT)
        put(numbers, int64(0), BEST)
        with T.serial(0, each) as i:
            passes = _passes(call, scores[b, c, i], least[int64(0)])
            with T.If(passes), T.Then():
                keep(b, c, i, LEFT, BEST)
        limit = tirx.max(int64(0), tirx.min(each, most[int64(0)]))
        with T.serial(0, limit), T.If(number(LEFT) > int64(0)), T.Then():
            take(b, c)

    def take(b: Expr, c: Expr) -> None:
        best = T.bind(number(BEST))
        box = T.bind(rest[best])
        row = T.bind(number(FOUND))
        for k, value in enumerate((b, c, box)):
            put(found, value, row, k)
        put(numbers, row + int64(1), FOUND)
        candidates = T.bind(number(LEFT))
        put(numbers, int64(0), LEFT)
        with T.serial(0, candidates) as j:
            other = T.bind(rest[j])
            apart = tirx.Not(_ratio(boxes, b, box, other, corners) > overlap[int64(0)])
            with T.If(tirx.And(j != best, apart)), T.Then():
                keep(b, c, other, LEFT, BEST)

    with IRBuilder() as ib:
        with T.seq_scope():
            put(numbers, int64(0), FOUND)
            with T.serial(0, batch) as b, T.serial(0, classes) as c:
                one(b, c)
        return ib.get()


def _passes(call: Call, score: Expr, least: Expr) -> Expr:
    return score > least if call.has(4) else tirx.const(True, "bool")


def _ratio(boxes: Var, b: Expr, one: Expr, other: Expr, corners: bool) -> Expr:
    """Area of what two boxes share, of that of both together; 0 where one has no area."""
    zero = tirx.const(0.0, "float32")

    def range_of(box: Expr, k: int) -> tuple[Expr, Expr]:
        if corners:  # two corners, either of them first
            first, last = boxes[b, box, int64(k)], boxes[b, box, int64(k + 2)]
            return tirx.min(first, last), tirx.max(first, last)
        middle, size = boxes[b, box, int64(k)], boxes[b, box, int64(k + 2)]
        half = size / tirx.const(2.0, "float32")
        return middle - half, middle + half

    shared, areas = [], []
    sides = [[range_of(box, k) for k in range(2)] for box in (one, other)]
    for (a, z), (begin, end) in zip(*sides):
        shared.append(tirx.max(zero, tirx.min(z, end) - tirx.max(a, begin)))
    for (top, bottom), (left, right) in sides:
        areas.append((bottom - top) * (right - left))
    inside = T.bind(shared[0] * shared[1])
    both = T.bind(areas[0] + areas[1] - inside)
    real = tirx.And(both > zero, tirx.And(areas[0] > zero, areas[1] > zero))
    return tirx.Select(real, inside / both, zero)


CONVERTERS: dict[str, Converter] = {"NonMaxSuppression": _nms}
