"""Cumulative sums, products and the like: each result from the one before it.

out[i, k] = x[i, 0] + ... + x[i, k]

along      the threads of a block share a row, tile by tile:
               mine = what PER_THREAD neighbours come to, one after another
               those before it: inside a warp by shuffles, between warps through shared memory
               carry = what all tiles so far come to
across     a thread has a row, neighbours in a warp neighbouring rows
in parts   where rows are few and long, several blocks share one:
               part[r, p] = sum over the k of p of x[r, k]             a launch of its own
               carry = part[r, 0] + ... + part[r, p - 1]               and a part as a row "along"
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from math import ceil

from tvm import tirx
from tvm.ir import Expr, Var
from tvm.tirx import ForKind, Stmt

from tvmext.arch import CudaArch
from tvmext.arch.cuda import WARP

from ..kernel.access import flattened, relocated
from ..kernel.analysis import REDUCE, Axis, analyzer, constant, variables
from ..kernel.axes import product
from ..kernel.emit import Size, allocate, bind, block, ceildiv, index, known, least, loop
from ..kernel.stages import COMBINE, Point, Stage
from ..rule import Declined, Kernel, Scheduled
from .cut import LAUNCH, cut, part_length
from .launch import Block, Share, axes_at, code, finished, launch, split, sync, when
from .reduce import FULL, reduced
from .rows import reduction
from .staged import as_stages, function, handed_over
from .waves import LATENCY

PER_THREAD = 4
"""Neighbours that a thread adds up by itself."""
MOST_THREADS, THREADS = 256, 256
"""Threads of a block for one row at most, and for rows of one thread each."""
UNKNOWN = 1024
"""What a size is taken for that is known at run time only."""
PART = 2048
"""Elements of a part at least: two tiles of a block."""


@dataclass(frozen=True)
class Scanned:
    """Rows and their length, None if known at run time only; `exclusive` leaves out x[i, k]."""

    rows: int | None
    length: int | None
    exclusive: bool
    stage: Stage = field(repr=False, compare=False)
    along: Axis = field(repr=False, compare=False)


@dataclass(frozen=True)
class Decision:
    """Threads of a block, which share a row, or have one each.

    Rows of `length` elements and more are cut into `parts`, each for a block.
    """

    threads: int
    shared: bool
    parts: int = 1
    length: int = 0


class Scan:
    """A reduction whose range grows with one of the axes of its result, and nothing else does."""

    name = "scan"

    def match(self, kernel: Kernel) -> Scanned | Declined:
        found = as_stages(kernel)
        if isinstance(found, Declined):
            return found
        if len(found.stages) != 1:
            return Declined("it has several stages")
        (stage,) = found.stages
        if len(stage.writes) != 1 or not stage.writes[0].op or len(stage.reduce) != 1:
            return Declined("it is not one reduction along one axis")
        ana = analyzer(stage.spatial)
        extent = stage.reduce[0].extent
        for axis in stage.spatial:
            beyond = constant(ana.simplify(extent - axis.var))
            used = set().union(*map(variables, stage.point.exprs()))
            if beyond in (0, 1) and axis.var not in used:
                rows = [a for a in stage.spatial if a is not axis]
                count = constant(product(a.extent for a in rows))
                return Scanned(count, axis.size, beyond == 0, stage, axis)
        return Declined("the range of the reduction does not grow with an axis")

    def choose(self, workload: Scanned, arch: CudaArch) -> Decision:
        rows = UNKNOWN if workload.rows is None else workload.rows
        length = UNKNOWN if workload.length is None else workload.length
        # A thread alone reads its row at the latency of memory: rows enough hide it.
        if length <= WARP or rows >= arch.sms * arch.threads_per_sm:
            return Decision(THREADS, False)
        wanted = 1 << max(0, (length // PER_THREAD).bit_length() - 1)
        whole = Decision(max(WARP, min(MOST_THREADS, wanted)), True)
        return _in_parts(workload, arch) or whole

    def apply(
        self, kernel: Kernel, workload: Scanned, decision: Decision, arch: CudaArch
    ) -> Scheduled:
        func = kernel.func
        if decision.parts == 1:
            body = _Builder(workload, decision).launch()
            return Scheduled(tirx.PrimFunc(func.params, body, func.ret_type, func.attrs))
        first, _ = cut(_row_sum(workload), decision.parts, along=True)
        homes = handed_over(func, [first])
        ((part, _),) = homes.values()
        body = block(
            reduction(relocated(first, homes), arch),
            _Builder(workload, decision, part).launch(),
        )
        if workload.length is None:
            whole = _Builder(workload, replace(decision, parts=1)).launch()
            body = when(workload.along.extent >= index(decision.length), body, whole)
        return Scheduled(function(func, homes, [body]))


def _in_parts(found: Scanned, arch: CudaArch) -> Decision | None:
    """The rows cut into parts, if they leave multiprocessors idle and are long enough for that.

    A block alone waits for what it asks for, tile after tile; cut, for a part of the tiles, for two
    more stages and for a launch.
    """
    width = MOST_THREADS * PER_THREAD
    parts = 2 * arch.sms // found.rows if found.rows else 1
    if parts < 2:
        return None
    tiles = (LAUNCH + 2 * LATENCY) / (LATENCY * (1 - 1 / parts))
    least_length = max(2 * PART, ceil(tiles) * width)
    if found.length is None:
        return Decision(MOST_THREADS, True, parts, least_length)
    if found.length < least_length:
        return None
    return Decision(MOST_THREADS, True, min(parts, found.length // PART), least_length)


def _row_sum(found: Scanned) -> Stage:
    """What whole rows come to."""
    stage, (before,) = found.stage, found.stage.reduce
    rows = tuple(axis for axis in stage.spatial if axis is not found.along)
    (write,) = stage.writes
    total = tirx.decl_buffer(
        [axis.extent for axis in rows], str(write.buffer.ty.dtype), f"{write.buffer.name}_row"
    )
    return Stage(
        f"{stage.name}_row",
        rows,
        (replace(before, extent=found.along.extent),),
        (replace(write, buffer=total, indices=tuple(axis.var for axis in rows)),),
        stage.point,
    )


class _Builder:
    """One kernel under construction; of rows in parts, `part` holds what they come to."""

    def __init__(self, found: Scanned, plan: Decision, part: Var | None = None) -> None:
        self.stage = flattened(found.stage)
        self.part = part
        self.whole = _row_sum(found)
        self.plan = plan
        self.exclusive = found.exclusive
        self.along = next(a for a in self.stage.spatial if a.var.same_as(found.along.var))
        self.rows = [a for a in self.stage.spatial if a is not self.along]
        self.length = known(self.along.extent)
        write = self.stage.writes[0]
        self.dtype, self.init = str(write.buffer.ty.dtype), write.init
        self.combine = COMBINE[str(write.op)]

    def launch(self) -> Stmt:
        count = known(product(axis.extent for axis in self.rows))
        if self.plan.shared:
            parts, width = self.plan.parts, self.plan.threads * PER_THREAD
            each = self.length if parts == 1 else part_length(self.whole, parts, along=True)
            tiles = ceildiv(each, width)

            def shared(number: Expr, x: Expr, _y: Expr) -> Stmt:
                row, part = split(number, parts)
                # Of an empty grid there is one block.
                mine = tirx.if_then_else(row < index(count), index(tiles), index(0))
                some = tiles if isinstance(count, int) else mine
                if parts == 1:
                    return self._shared(row, part, x, some, (index(0), self.length))

                def from_there(start: Expr) -> Stmt:
                    end = least(self.length, start + each)
                    return self._shared(row, part, x, some, (start, end))

                return bind(part * each, from_there, "start", "local")

            return launch(known(index(count) * parts), Block(self.plan.threads), shared)
        threads = self.plan.threads

        def alone(number: Expr, x: Expr, _y: Expr) -> Stmt:
            row = number * threads + x
            return when(row < index(count), self._alone(axes_at(self.rows, row)))

        return launch(ceildiv(count, threads), Block(threads), alone)

    def _element(self, at: dict[Var, Expr], k: Expr) -> tuple[list[Stmt], Expr]:
        binds, (value,) = code(self.stage.point, {**at, self.stage.reduce[0].var: k})
        return binds, value

    def _store(self, at: dict[Var, Expr], k: Expr, value: Expr) -> Stmt:
        return finished(self.stage, [value], {**at, self.along.var: k})

    def _alone(self, at: dict[Var, Expr]) -> Stmt:
        zero = index(0)
        total = allocate([1], self.dtype, "total", "local")

        def step(k: Expr) -> Stmt:
            binds, value = self._element(at, k)
            add = tirx.BufferStore(total, self.combine(total[zero], value), [zero])
            leave = self._store(at, k, total[zero])
            return block(*binds, *((leave, add) if self.exclusive else (add, leave)))

        return block(
            tirx.AllocBuffer(total),
            tirx.BufferStore(total, self.init, [zero]),
            loop(self.length, step, name="k"),
        )

    def _shared(
        self, row: Expr, part: Expr, x: Expr, tiles: Size, among: tuple[Expr, Size]
    ) -> Stmt:
        """The elements of a row `among` two places: all, or a part of them."""
        zero, warps = index(0), self.plan.threads // WARP
        start, end = among
        at = axes_at(self.rows, row)
        mine = allocate([PER_THREAD], self.dtype, "mine", "local")
        # [0]: carry, [1]: what this thread and those before it in its warp come to, [2]: before.
        # "before" is what stands before this thread's elements, "carry" before the tile.
        local = allocate([3], self.dtype, "local", "local")
        totals = allocate([warps], self.dtype, "totals", "shared")
        width = self.plan.threads * PER_THREAD

        def put(place: int, value: Expr) -> Stmt:
            return tirx.BufferStore(local, value, [index(place)])

        def tile(number: Expr) -> Stmt:
            first = start + number * width + x * PER_THREAD

            def take(v: Expr) -> Stmt:
                return self._take(mine, at, first, v, end)

            return block(
                loop(PER_THREAD, take, ForKind.UNROLLED, "v"),
                put(1, mine[index(PER_THREAD - 1)]),
                *(self._within(local, x, 1 << bit) for bit in range(5)),
                when(
                    (x % WARP).equal(WARP - 1),
                    tirx.BufferStore(totals, local[index(1)], [x // WARP]),
                ),
                sync(),
                put(2, local[zero]),
                loop(warps, between, name="w"),
                self._next(local, x),
                loop(PER_THREAD, lambda v: leave(first, v), ForKind.UNROLLED, "v"),
                sync(),
            )

        def between(w: Expr) -> Stmt:
            earlier = put(2, self.combine(local[index(2)], totals[w]))
            return block(when(w < x // WARP, earlier), put(0, self.combine(local[zero], totals[w])))

        def leave(first: Expr, v: Expr) -> Stmt:
            whole = self.combine(local[index(2)], mine[v])
            if self.exclusive:
                inside = self.combine(local[index(2)], mine[tirx.max(v - 1, zero)])
                whole = tirx.Select(v.equal(0), local[index(2)], inside)
            k = first + v
            return when(k < index(end), self._store(at, k, whole))

        return block(
            *map(tirx.AllocBuffer, (mine, local, totals)),
            put(0, self.init) if self.part is None else self._carry(local, row, part, x),
            loop(tiles, tile, name="tile"),
        )

    def _carry(self, local: Var, row: Expr, part: Expr, x: Expr) -> Stmt:
        """``local[0]`` = what the parts of the row before this one come to."""
        assert self.part is not None
        earlier = Axis(Var("earlier", "int64"), part, REDUCE)
        (write,) = self.whole.writes
        value = self.part[row * self.plan.parts + earlier.var]
        found = Stage(
            "carry",
            (),
            (earlier,),
            (replace(write, buffer=local, indices=(index(0),)),),
            Point((), (value,)),
        )
        share = Share(x, index(0), self.plan.threads, 1, True, tirx.const(True, "bool"))
        return reduced(found, lambda _: {}, share)

    def _take(self, mine: Var, at: dict[Var, Expr], first: Expr, v: Expr, end: Size) -> Stmt:
        """``mine[v]`` = the element `first + v` and those before it in this thread."""
        k = first + v
        binds, value = self._element(at, k)
        inside = block(*binds, tirx.BufferStore(mine, value, [v]))
        outside = tirx.BufferStore(mine, self.init, [v])
        more = self.combine(mine[tirx.max(v - 1, index(0))], mine[v])
        return block(
            when(k < index(end), inside, outside),
            when(v > 0, tirx.BufferStore(mine, more, [v])),
        )

    def _within(self, local: Var, x: Expr, distance: int) -> Stmt:
        """Add what the thread `distance` before this one has, which has added up as many."""
        one = index(1)
        other = _up(local[one], distance)
        name = Var("other", other.ty)
        add = tirx.BufferStore(local, self.combine(name, local[one]), [one])
        return block(tirx.Bind(name, other), when(x % WARP >= distance, add))

    def _next(self, local: Var, x: Expr) -> Stmt:
        """Add what the threads before this one in its warp come to."""
        other = _up(local[index(1)], 1)
        name = Var("other", other.ty)
        add = tirx.BufferStore(local, self.combine(local[index(2)], name), [index(2)])
        return block(tirx.Bind(name, other), when(x % WARP > 0, add))


def _up(value: Expr, distance: int) -> Expr:
    """The value of the thread that many before this one in its warp."""
    mask = tirx.const(FULL, "uint32")
    return tirx.op.tvm_warp_shuffle_up(mask, value, distance, WARP, WARP)
