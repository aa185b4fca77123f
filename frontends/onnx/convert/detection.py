"""Boxes of a detector: NonMaxSuppression."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

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
LANES = 32
"""Boxes that are kept are compared with so many at a time, whether there are as many or not."""
LAST_BOX = (1 << 32) - 1


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
            [
                (batch * classes * most, int64(3)),
                (1,),
                (each,),
                (CORNERS + 1, tirx.ceildiv(most, LANES) * LANES),
            ],
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
    scores, most = read[1], read[2]
    with IRBuilder() as ib:
        with T.seq_scope():
            search = _Search(call, read, written, T.alloc_buffer((5,), "int64", scope="local"))
            batch, classes, each = map(expr, scores.shape)
            search.put(FOUND, int64(0))
            with T.serial(0, batch) as b, T.serial(0, classes) as c:
                search.gather(b, c)
                limit = T.bind(tirx.min(each, most[int64(0)]))
                with T.While(tirx.And(search.get(LEFT) > 0, search.get(KEPT) < limit)):
                    search.consider(b, c, search.pop())
            T.buffer_store(written[1], search.get(FOUND), [int64(0)])
        return ib.get()


@dataclass(frozen=True)
class _Search:
    """`heap` holds the candidates of a class, `kept` the boxes that were taken and their areas."""

    call: Call
    read: Sequence[Var]
    written: Sequence[Var]
    numbers: Var

    def get(self, which: int) -> Expr:
        return self.numbers[int64(which)]

    def put(self, which: int, value: Expr) -> None:
        T.buffer_store(self.numbers, value, [int64(which)])

    @property
    def heap(self) -> Var:
        return self.written[2]

    def gather(self, b: Expr, c: Expr) -> None:
        """The boxes with enough of a score become a heap, and none is kept yet."""
        _, scores, _, _, least = self.read
        self.put(LEFT, int64(0))
        self.put(KEPT, int64(0))
        with T.serial(0, expr(scores.shape[2])) as i:
            score = T.bind(scores[b, c, i])
            T.buffer_store(self.heap, _rank(score, i), [self.get(LEFT)])
            passes = score > least[int64(0)] if self.call.has(4) else tirx.const(True, "bool")
            self.put(LEFT, self.get(LEFT) + passes.astype("int64"))
        half = T.bind(self.get(LEFT) // 2)
        with T.serial(0, half) as i:
            self.sink(half - 1 - i)

    def pop(self) -> Expr:
        """The best box of the heap, which loses it."""
        best = T.bind(_box(self.heap[int64(0)]))
        self.put(LEFT, self.get(LEFT) - 1)
        T.buffer_store(self.heap, self.heap[self.get(LEFT)], [int64(0)])
        self.sink(int64(0))
        return best

    def sink(self, place: Expr) -> None:
        """What lies at a place of the heap goes down until none below it is better."""
        heap, moved = self.heap, T.bind(self.heap[place])
        self.put(PLACE, place)
        self.put(CHILD, place * 2 + 1)
        with T.While(self.get(CHILD) < self.get(LEFT)):
            left = T.bind(self.get(CHILD))
            right = T.bind(tirx.min(left + 1, self.get(LEFT) - 1))
            best = T.bind(tirx.Select(heap[right] > heap[left], right, left))
            rises = T.bind(heap[best] > moved)
            with T.If(rises), T.Then():
                T.buffer_store(heap, heap[best], [self.get(PLACE)])
                self.put(PLACE, best)
            self.put(CHILD, tirx.Select(rises, best * 2 + 1, self.get(LEFT)))
        T.buffer_store(heap, moved, [self.get(PLACE)])

    def consider(self, b: Expr, c: Expr, box: Expr) -> None:
        """Keep a box, unless it overlaps one that is kept."""
        found, _, _, kept = self.written
        corners = [T.bind(one) for one in _corners(self.call, self.read[0], b, box)]
        area = T.bind(_area(corners))
        with T.If(self.overlapped(corners, area).equal(0)), T.Then():
            for k, value in enumerate((*corners, area)):
                T.buffer_store(kept, value, [int64(k), self.get(KEPT)])
            for k, value in enumerate((b, c, box)):
                T.buffer_store(found, value, [self.get(FOUND), int64(k)])
            self.put(KEPT, self.get(KEPT) + 1)
            self.put(FOUND, self.get(FOUND) + 1)

    def overlapped(self, corners: Sequence[Expr], area: Expr) -> Expr:
        """Not 0 if a box shares too much with one of those kept, which are looked at `LANES` at a
        time: a loop without an exit, so that it can be one of vectors."""
        overlap, kept = self.read[3], self.written[3]
        count = T.bind(self.get(KEPT))
        hits = T.alloc_buffer((1,), "int32", scope="local")
        T.buffer_store(hits, tirx.const(0, "int32"), [int64(0)])
        self.put(PLACE, int64(0))
        with T.While(tirx.And(self.get(PLACE) < count, hits[int64(0)].equal(0))):
            last = expr(kept.shape[1]) - LANES  # where passes see that no lane is outside
            begin = T.bind(tirx.max(tirx.min(self.get(PLACE), last), int64(0)))
            with T.serial(0, int64(LANES)) as lane:
                other = [kept[int64(k), begin + lane] for k in range(CORNERS + 1)]
                ratio = _ratio(corners, area, other[:CORNERS], other[CORNERS])
                hit = tirx.And(ratio > overlap[int64(0)], begin + lane < count)
                T.buffer_store(hits, hits[int64(0)] | hit.astype("int32"), [int64(0)])
            self.put(PLACE, begin + LANES)
        return hits[int64(0)]


def _rank(score: Expr, box: Expr) -> Expr:
    """An integer that is larger the better the box comes: by its score, then by its number.

    The bits of a float32 of one sign are ordered as integers are; those below 0 the other way.
    """
    bits = tirx.reinterpret("int32", tirx.Select(score.equal(0.0), tirx.const(0.0), score))
    ordered = bits ^ ((bits >> 31) & 0x7FFFFFFF)
    return (ordered.astype("int64") << 32) | (int64(LAST_BOX) - box)


def _box(rank: Expr) -> Expr:
    return int64(LAST_BOX) - (rank & int64(LAST_BOX))


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
