"""The k largest or smallest elements along an axis, in place of TVM's library function.

    for row, in parallel where it pays:
        heap = the first k elements                            the least of them on top
        for block of the others:
            if its largest key beats the top:                  vectors: hardly ever
                for element that beats the top:  replace it
        sort the heap, store

An element is one integer, ``key << 32 | ~index``, so that of equal ones the first wins. Keys order
floats as ONNX's reference and PyTorch do: NaN above all, +0 like -0. TVM's function, like ONNX
Runtime's, compares floats, which is no order once there is a NaN, and loses elements.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from tvm import tirx
from tvm.ir import Call, Expr, StringImm, Var

from tvmext.arch import CpuArch

from ..kernel.analysis import collect, constant
from ..kernel.axes import unfused
from ..kernel.emit import (
    PARALLEL,
    SERIAL,
    UNROLLED,
    VECTORIZED,
    Size,
    allocate,
    bind,
    block,
    index,
    known,
    least,
    loop,
)
from ..rule import Declined, Kernel, Scheduled
from .plan import LAUNCH_NS, UNKNOWN_DIM

LIBRARY = "tvm.contrib.sort.topk"
FLOATS = ("float16", "bfloat16", "float32")
INTEGERS = ("bool", "int8", "uint8", "int16", "uint16", "int32")
VECTORS = 4
"""Vectors of a block: enough to hide the latency of their maxima."""


@dataclass(frozen=True)
class Workload:
    """`count` of the elements along `axis`; 0 sorts all of them."""

    count: int
    axis: int
    largest: bool
    data: Var = field(repr=False, compare=False)
    values: Var | None = field(repr=False, compare=False)
    where: Var | None = field(repr=False, compare=False)


@dataclass(frozen=True)
class Decision:
    """Elements of a block that are looked at together, and whether rows are spread over cores."""

    lanes: int
    vectors: int
    parallel: bool


class TopK:
    """Kernels that are one call of the library's function."""

    name = "top k"
    takes_loaders = False

    def match(self, kernel: Kernel) -> Workload | Declined:
        calls = [c for c in collect(kernel.func.body, Call) if _packed(c) == LIBRARY]
        if len(calls) != 1:
            return Declined("it does not call the library's top k")
        count, axis, kind, ascend = calls[0].args[-4:]
        data, *outputs = kernel.func.params
        if str(data.dtype) not in (*FLOATS, *INTEGERS):
            return Declined(f"{data.dtype} and an index do not fit one integer")
        values = outputs[0] if kind.value in ("both", "values") else None
        where = outputs[-1] if kind.value in ("both", "indices") else None
        place = (constant(axis) or 0) % len(data.shape)
        return Workload(constant(count) or 0, place, not constant(ascend), data, values, where)

    def choose(self, workload: Workload, arch: CpuArch) -> Decision:
        data = workload.data
        sizes = [constant(n) or UNKNOWN_DIM for n in data.shape]
        elements, along = 1, sizes[workload.axis]
        for size in sizes:
            elements *= size
        parallel = arch.cores > 1 and elements > along and elements > 4 * LAUNCH_NS
        if workload.axis < len(sizes) - 1:
            return Decision(1, 1, parallel)
        return Decision(arch.vector_lanes("int32"), VECTORS, parallel)

    def apply(
        self, kernel: Kernel, workload: Workload, decision: Decision, arch: CpuArch
    ) -> Scheduled:
        body = _Builder(workload, decision).build()
        func = kernel.func
        return Scheduled(tirx.PrimFunc(func.params, body, func.ret_type, func.attrs))


def _packed(call: Call) -> str:
    name = call.args[0] if call.args else None
    return name.value if isinstance(name, StringImm) else ""


class _Builder:
    def __init__(self, work: Workload, decision: Decision) -> None:
        self.work, self.decision = work, decision
        shape = work.data.shape
        self.extent: Size = known(shape[work.axis])
        self.others = [n for d, n in enumerate(shape) if d != work.axis]
        wanted: Size = work.count or self.extent
        self.wanted = wanted
        self.count = least(wanted, self.extent)

    def build(self) -> tirx.Stmt:
        rows: Size = 1
        for extent in self.others:
            rows = known(rows * extent)
        kind = PARALLEL if self.decision.parallel else SERIAL
        return loop(rows, lambda row: bind(row, self._row, "row"), kind, "row")

    def _row(self, row: Expr) -> tirx.Stmt:
        places = list(unfused(self.others, row)) if self.others else []

        def at(buffer: Var, i: Expr) -> list[Expr]:
            return [*places[: self.work.axis], i, *places[self.work.axis :]]

        self.at = at
        self.heap = allocate([self.wanted], "int64", "heap")
        self.hole = allocate([1], "int64", "hole")
        self.child = allocate([1], "int64", "child")
        buffers = (self.heap, self.hole, self.child)
        count = self.count
        return block(
            *(tirx.AllocBuffer(buffer) for buffer in buffers),
            loop(count, lambda i: tirx.BufferStore(self.heap, self._element(i), [i])),
            loop(known(count // 2), lambda i: self._settle(count // 2 - 1 - i, count)),
            self._others(),
            loop(known(count - 1), lambda i: self._last(count - 1 - i)),
            loop(count, self._store),
            self._missing(),
        )

    def _others(self) -> tirx.Stmt:
        """The elements after the first ones, in blocks."""
        width = self.decision.lanes * self.decision.vectors
        start, rest = self.count, known(self.extent - self.count)

        def beats(i: Expr) -> tirx.Stmt:
            def replace(element: Expr) -> tirx.Stmt:
                better = element > self.heap[index(0)]
                return tirx.IfThenElse(better, self._sift(index(0), element, start), None)

            return bind(self._element(i), replace, "element")

        if width == 1:
            return loop(rest, lambda i: beats(i + start))

        def some(number: Expr) -> tirx.Stmt:
            first = number * width + start
            best = allocate([self.decision.lanes], "int32", "best")
            top = (self.heap[index(0)] >> 32).astype("int32")
            look = tirx.IfThenElse(
                best[index(0)] > top, loop(width, lambda i: beats(first + i)), None
            )
            return block(tirx.AllocBuffer(best), self._largest(best, first), look)

        whole = known(rest // width)
        return block(
            loop(whole, some),
            loop(known(rest - whole * width), lambda i: beats(i + start + whole * width)),
        )

    def _largest(self, best: Var, first: Expr) -> tirx.Stmt:
        """``best[0]`` becomes the largest key of a block."""
        lanes = self.decision.lanes

        def vector(width: int, value: Callable[[Expr], Expr]) -> tirx.Stmt:
            return loop(width, lambda j: tirx.BufferStore(best, value(j), [j]), VECTORIZED, "lane")

        def larger(v: Expr) -> tirx.Stmt:
            return vector(
                lanes, lambda j: tirx.max(best[j], self._key(first + (v + 1) * lanes + j))
            )

        def joined(half: int) -> tirx.Stmt:
            return vector(half, lambda j: tirx.max(best[j], best[j + half]))

        parts = [
            vector(lanes, lambda j: self._key(first + j)),
            loop(self.decision.vectors - 1, larger, UNROLLED, "v"),
        ]
        while lanes > 1:
            lanes //= 2
            parts.append(joined(lanes))
        return block(*parts)

    def _key(self, i: Expr) -> Expr:
        """An integer that orders elements; the larger one is wanted."""
        data = self.work.data
        value = data[tuple(self.at(data, i))]
        if str(data.dtype) in INTEGERS:
            key = value.astype("int32")
        else:
            bits = tirx.reinterpret("int32", value.astype("float32"))
            size = bits & 0x7FFFFFFF
            key = tirx.Select(bits < 0, -size, size)
            key = tirx.Select(size > 0x7F800000, tirx.const(0x7FFFFFFF, "int32"), key)
        return key if self.work.largest else ~key

    def _element(self, i: Expr) -> Expr:
        return (self._key(i).astype("int64") << 32) | (index(0xFFFFFFFF) - i)

    # -------------------------------------------------------------- the heap, its least on top

    def _settle(self, place: Expr, size: Size) -> tirx.Stmt:
        """Move what is at `place` down to where it belongs."""

        def down(at: Expr) -> tirx.Stmt:
            return bind(self.heap[at], lambda item: self._sift(at, item, size), "item")

        return bind(place, down, "place")

    def _last(self, end: Expr) -> tirx.Stmt:
        """The top goes to the end of a heap that is then shorter by one."""

        def swap(end: Expr, item: Expr) -> tirx.Stmt:
            top = tirx.BufferStore(self.heap, self.heap[index(0)], [end])
            return block(top, self._sift(index(0), item, end))

        return bind(
            end, lambda end: bind(self.heap[end], lambda item: swap(end, item), "item"), "end"
        )

    def _sift(self, place: Expr, item: Expr, size: Size) -> tirx.Stmt:
        """Put `item` in at `place` or below, smaller ones moving up."""
        heap, zero = self.heap, index(0)
        hole, child = self.hole[zero], self.child[zero]

        def descend(to: Expr) -> tirx.Stmt:
            """The hole is at `to`, `child` the smaller of what is below, or too large a number."""
            left, right = to * 2 + 1, tirx.min(to * 2 + 2, index(size) - 1)
            inside = tirx.min(left, index(size) - 1)
            below = tirx.Select(heap[right] < heap[inside], right, left)
            return block(
                tirx.BufferStore(self.hole, to, [zero]), tirx.BufferStore(self.child, below, [zero])
            )

        def up(at: Expr) -> tirx.Stmt:
            return block(tirx.BufferStore(heap, heap[at], [hole]), descend(at))

        first = tirx.min(child, index(size) - 1)
        goes_on = tirx.And(child < index(size), heap[first] < item)
        return block(
            descend(place),
            tirx.While(goes_on, bind(child, up, "at")),
            tirx.BufferStore(heap, item, [hole]),
        )

    # -------------------------------------------------------------- results

    def _store(self, i: Expr) -> tirx.Stmt:
        def put(place: Expr) -> tirx.Stmt:
            data, values, where = self.work.data, self.work.values, self.work.where
            parts = []
            if values is not None:
                value = data[tuple(self.at(data, place))]
                parts.append(tirx.BufferStore(values, value, self.at(values, i)))
            if where is not None:
                at = place.astype(str(where.dtype))
                parts.append(tirx.BufferStore(where, at, self.at(where, i)))
            return block(*parts)

        return bind(index(0xFFFFFFFF) - (self.heap[i] & index(0xFFFFFFFF)), put, "place")

    def _missing(self) -> tirx.Stmt | None:
        """Zeros where there are fewer elements than wanted."""
        outputs = [o for o in (self.work.values, self.work.where) if o is not None]

        def zero(i: Expr) -> tirx.Stmt:
            stores = []
            for out in outputs:
                nothing = tirx.const(0, str(out.dtype))
                stores.append(tirx.BufferStore(out, nothing, self.at(out, i + self.count)))
            return block(*stores)

        missing = known(self.wanted - self.count)
        return None if constant(missing) == 0 else loop(missing, zero)
