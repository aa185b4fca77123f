"""Pooling along the contiguous axis (NCHW), where windows of neighbours overlap in one vector.

    for image and channel, in parallel:
        for block of output rows:
            line[y, j] = combine over the rows of the window of x[.., j]   vectors along the row
            out[y, w] = combine over k of line[y, stride w + k]            from the line, in L1

A line holds the padding, so that nothing inside has a condition. There are several, because a load
that overlaps two stores has to wait until they have left for L1.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from tvm import tirx
from tvm.ir import Expr, TensorLoad, Var
from tvm.tirx import BufferStore, ForKind, Stmt

from tvmext.arch import CpuArch, dtype_bits

from ..kernel import loops
from ..kernel.analysis import Axis, analyzer, constant, stride, substitute, variables
from ..kernel.axes import fused, tiles
from ..kernel.loops import int64, local, scope, sequence, strip
from ..kernel.stages import COMBINE, Stage
from ..rule import Declined, Kernel, Scheduled
from .decision import StagePlan
from .inside import Inside
from .plan import LAUNCH_NS, UNKNOWN_DIM, cost_ns
from .staged import as_stages

UNROLL = 4
"""Vectors of a line that are combined together."""

BLOCK_ROWS = 8
"""Output rows of a block, where their lines fit L1."""

MOST_UNROLLED = 8
"""Taps along a row up to which the loop over them is unrolled."""


@dataclass(frozen=True)
class Workload:
    """One pooling stage: ``stride * w + tap + offset`` is the column that an output reads."""

    step: int
    offset: int
    stage: Stage = field(repr=False, compare=False)
    load: TensorLoad = field(repr=False, compare=False)
    tap: Axis = field(repr=False, compare=False)

    @property
    def width(self) -> Axis:
        """The axis along the row."""
        return self.stage.spatial[-1]


@dataclass(frozen=True)
class Decision:
    """Vectors of `lanes` elements, blocks of `rows` output rows; images over the cores or not."""

    lanes: int
    rows: int
    parallel: bool


class PoolRows:
    """One window that slides along the last axis of what is read and of what is stored."""

    name = "pool rows"

    def match(self, kernel: Kernel) -> Workload | Declined:
        found = as_stages(kernel)
        if isinstance(found, Declined):
            return found
        stage = found.stages[0]
        if len(found.stages) != 1 or not stage.is_reduction or len(stage.writes) != 1:
            return Declined("it is not one reduction with what follows from it")
        return _read(stage)

    def choose(self, workload: Workload, arch: CpuArch) -> Decision:
        dtype = str(workload.stage.writes[0].buffer.dtype)
        lanes = arch.vector_lanes(dtype)
        while lanes > (workload.width.size or lanes):
            lanes //= 2
        width = workload.width.size or UNKNOWN_DIM
        line_bytes = width * (workload.step + 1) * dtype_bits(dtype) // 8
        rows = max(1, min(BLOCK_ROWS, arch.l1_bytes // 2 // max(1, line_bytes)))
        pays = cost_ns(workload.stage) > 4 * LAUNCH_NS
        return Decision(lanes, rows, arch.cores > 1 and pays)

    def apply(
        self, kernel: Kernel, workload: Workload, decision: Decision, arch: CpuArch
    ) -> Scheduled:
        return Scheduled(_Builder(workload, decision).build(kernel))


def _read(stage: Stage) -> Workload | Declined:
    """The window of a stage, or why it is none that slides along rows."""
    load, write = stage.point.values[0], stage.writes[0]
    if stage.point.binds or not isinstance(load, TensorLoad) or write.op not in COMBINE:
        return Declined("elements are not combined as they are")
    if not stage.spatial or not load.indices:
        return Declined("no rows")
    width = stage.spatial[-1]
    *outer, at = load.indices
    taps = [axis for axis in stage.reduce if axis.var in variables(at)]
    stored = (stage.epilogue or stage).writes[0].indices[-1]
    if width.var not in variables(at) or len(taps) != 1 or not stored.same_as(width.var):
        return Declined("no window slides along rows")
    tap, ana = taps[0], analyzer(stage.axes, load.source.shape)
    if any(variables(index) & {width.var, tap.var} for index in outer):
        return Declined("rows are not read one by one")
    steps = [stride(at, axis.var, ana) for axis in (width, tap)]
    step, one = (None if s is None else constant(s) for s in steps)
    offset = constant(ana.simplify(substitute(at, {a.var: int64(0) for a in (width, tap)})))
    if step is None or step < 1 or one != 1 or offset is None:
        return Declined("the window is dilated, or not affine")
    for var, side, limit in stage.limits:
        if var.same_as(tap.var):
            edge = 0 if side == "low" else load.source.shape[-1]
            if not ana.can_prove_equal(substitute(at, {tap.var: limit}), edge):
                return Declined("the padding begins elsewhere than the input ends")
        elif width.var in variables(limit):
            return Declined("the window's height depends on where it is in a row")
    return Workload(step, offset, stage, load, tap)


class _Builder:
    """One pooling kernel under construction."""

    def __init__(self, work: Workload, decision: Decision) -> None:
        self.work = work
        self.stage = work.stage
        self.lanes = decision.lanes
        self.parallel = decision.parallel
        write = self.stage.writes[0]
        self.combine = COMBINE[write.op or ""]
        assert write.init is not None
        self.init = write.init
        self.dtype = write.buffer.ty.dtype
        self.inside = Inside(self.stage, StagePlan("columns", self.lanes), {}, [])
        simplify = analyzer(self.stage.axes, work.load.source.shape).simplify
        width, columns = work.width.extent, work.load.source.shape[-1]
        # Columns 0 .. length of the line are columns `offset` .. of the input.
        self.length = simplify((width - 1) * work.step + work.tap.extent)
        self.before = max(0, -work.offset)
        self.skipped = max(0, work.offset)
        inside = tirx.min(columns - self.skipped, self.length - self.before)
        self.count = simplify(tirx.max(inside, int64(0)))
        # A vector of every second element reads one element further than it needs.
        self.lines = decision.rows
        self.line = local((self.lines, simplify(self.length + 1)), self.dtype, "line")
        self.row = local((self.lines, width), self.dtype, "row")

    def build(self, kernel: Kernel) -> tirx.PrimFunc:
        *outer, last = self.stage.spatial[:-1] or (None,)
        axes = [axis for axis in outer if axis is not None]

        def image(at: tuple[Expr, ...]) -> Stmt:
            values = {axis.var: index for axis, index in zip(axes, at)}

            def place(y: Expr) -> dict[Var, Expr]:
                return values if last is None else values | {last.var: y}

            def some(block: Expr) -> Stmt:
                first = block * self.lines
                count = tirx.min(int64(self.lines), rows - first)
                steps = (
                    lambda i: self._gather(place(first + i), i),
                    lambda i: self._slide(i),
                    lambda i: self._finish(place(first + i), i),
                )
                return sequence([loops.loop(count, step, name="y") for step in steps])

            def clear(i: Expr) -> Stmt:
                return strip(
                    self.line.shape[1],
                    self.lanes,
                    lambda j: BufferStore(self.line, self.init, [i, j]),
                )

            rows = int64(1) if last is None else last.extent
            blocks = tirx.floordiv(rows + (self.lines - 1), int64(self.lines))
            body = sequence(
                [loops.loop(self.lines, clear, name="y"), loops.loop(blocks, some, name="block")]
            )
            return scope(body, [self.line, self.row], "image")

        kind = ForKind.PARALLEL if self.parallel else ForKind.SERIAL
        body = fused([axis.extent for axis in axes], image, kind) if axes else image(())
        return loops.function(kernel.func, body, self.inside.buffers)

    def _gather(self, at: dict[Var, Expr], number: Expr) -> Stmt:
        """``line[number, j] = combine over the window's rows of x[.., j]``."""
        others = [axis for axis in self.stage.reduce if axis is not self.work.tap]

        def value(ks: dict[Var, Expr], column: Expr) -> Expr:
            *outer, _ = self.work.load.indices
            where = [substitute(index, at | ks) for index in outer]
            return tirx.BufferLoad(self.work.load.source, [*where, column + self.skipped])

        def combine(acc: Var, j: Expr, ks: dict[Var, Expr], column: Expr) -> Stmt:
            return BufferStore(acc, self.combine(acc[j], value(ks, column)), [j])

        def tile(base: Expr, width: int) -> Stmt:
            acc = local((width,), self.dtype, "acc")
            self.inside.buffers.append(acc)
            start = loops.vector(width, lambda j: BufferStore(acc, self.init, [j]))
            ranges = [self._range(axis, at) for axis in others]

            def step(indices: tuple[Expr, ...]) -> Stmt:
                ks = {a.var: low + i for a, (low, _), i in zip(others, ranges, indices)}
                return loops.vector(width, lambda j: combine(acc, j, ks, base + j))

            done = loops.vector(
                width, lambda j: BufferStore(self.line, acc[j], [number, base + j + self.before])
            )
            return sequence([start, loops.nest([high - low for low, high in ranges], step), done])

        return tiles(self.count, UNROLL * self.lanes, self.lanes, tile)

    def _range(self, axis: Axis, at: dict[Var, Expr]) -> tuple[Expr, Expr]:
        """Where the window's rows along one axis start and end."""
        low, high = int64(0), axis.extent
        for var, side, limit in self.stage.limits:
            if var.same_as(axis.var):
                limit = substitute(limit, at)
                low = tirx.max(low, limit) if side == "low" else low
                high = tirx.min(high, limit) if side == "high" else high
        return low, high

    def _slide(self, number: Expr) -> Stmt:
        """``row[number, w] = combine over k of line[number, stride w + k]``."""
        width, lanes = self.work.width.extent, self.lanes
        acc = local((lanes,), self.dtype, "acc")
        self.inside.buffers.append(acc)

        def vector(w: Expr) -> Stmt:
            whole = tirx.Ramp(int64(0), int64(1), lanes)

            def step(k: Expr) -> Stmt:
                value = self.combine(acc[whole], self._strided(number, w * self.work.step + k))
                return BufferStore(acc, value, [whole])

            start = BufferStore(acc, tirx.Broadcast(self.init, lanes), [whole])
            done = BufferStore(self.row, acc[whole], [number, tirx.Ramp(w, int64(1), lanes)])
            return sequence([start, self._taps(step), done])

        def single(w: Expr) -> Stmt:
            def step(k: Expr) -> Stmt:
                value = self.combine(self.row[number, w], self.line[number, w * self.work.step + k])
                return BufferStore(self.row, value, [number, w])

            return sequence([BufferStore(self.row, self.init, [number, w]), self._taps(step)])

        def vectors() -> Stmt:
            return loops.loop(
                (width + (lanes - 1)) // lanes,
                lambda t: vector(tirx.min(t * lanes, width - lanes)),
            )

        if self.work.width.size is not None:
            return vectors() if self.work.width.size >= lanes else loops.loop(width, single)
        return tirx.IfThenElse(width >= lanes, vectors(), loops.loop(width, single))

    def _taps(self, step: loops.Body) -> Stmt:
        size = self.work.tap.size
        few = size is not None and size <= MOST_UNROLLED
        kind = ForKind.UNROLLED if few else ForKind.SERIAL
        return loops.loop(self.work.tap.extent, step, kind, "k")

    def _strided(self, number: Expr, first: Expr) -> Expr:
        """A vector of every `step`-th element of the line."""
        step, lanes = self.work.step, self.lanes
        if step != 2 or lanes == 1:
            return self.line[number, tirx.Ramp(first, int64(step), lanes)]
        halves = [
            self.line[number, tirx.Ramp(first + n * lanes, int64(1), lanes)] for n in range(2)
        ]
        return tirx.Shuffle(halves, [tirx.const(2 * n, "int32") for n in range(lanes)])

    def _finish(self, at: dict[Var, Expr], number: Expr) -> Stmt:
        width = self.work.width

        def point(w: Expr) -> Stmt:
            return self.inside.finish([self.row[number, w]], at | {width.var: w})

        return strip(width.extent, self.lanes, point)
