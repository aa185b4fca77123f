"""Depthwise convolutions: a thread has several outputs along the row, for 16 bytes of channels.

for output row:                                          blocks; their threads:
    x: 16 bytes of channels, then tiles of `pixels` outputs along the row
    for line of the window:
        weights of the line                              in registers
        for column of the input under the tile:          read once, for all that it counts to
            sums[p] += column * weight[k]                where p * stride + k * step is the column
    out[...] = epilogue(sums)
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from tvm import tirx
from tvm.ir import Expr, TensorLoad, Var
from tvm.tirx import ForKind, Stmt

from tvmext.arch import CudaArch, dtype_bits
from tvmext.arch.cuda import WARP

from ..kernel.analysis import (
    Axis,
    analyzer,
    called_ops,
    collect,
    constant,
    flat_index,
    stride,
    substitute,
)
from ..kernel.contraction import Contraction, known_size, rows_of, size, slides_along
from ..kernel.emit import Size, Values, allocate, block, ceildiv, index, known, loop
from ..kernel.read_contraction import contraction
from ..levels import UNKNOWN_SIDE
from ..rule import Declined, Kernel, Scheduled
from .contract import SUMS
from .epilogue import Epilogue
from .launch import Block, among, axes_at, launch, when
from .operand import multiples, narrow, outside_of_loads
from .vectors import neighbours
from .weights import Turned, turned, with_weight

ACCESS_BYTES = 16
"""The widest access of one thread (CUDA C++ Programming Guide, Device Memory Accesses)."""
SHARED_BYTES_PER_CYCLE = 128
"""Of the L1 cache, which is the same memory (CUDA C++ Programming Guide, Shared Memory)."""
MOST_PIXELS, MOST_TAPS = 8, 11
OTHER_REGISTERS = 40
"""Registers of a thread for addresses and what passes through."""
MOST_REGISTERS = 128
"""With as many, 16 warps fit on a multiprocessor: enough for the latency of the cache."""
BUSY_WARPS = 16
"""Warps that keep a multiprocessor busy; fewer take as long: an estimate."""
BLOCKS = (64, 128, 256)
"""Threads of a block, of which the least idle one is taken."""


@dataclass(frozen=True)
class Workload:
    """A depthwise convolution; sizes are None where they are known at run time only.

    `lines` are the elements of the window beside its `taps` along the row; the input moves by
    `stride` with the output and by `step` with the tap. `lanes` channels are 16 bytes or less.
    """

    images: int | None
    height: int | None
    width: int | None
    channels: int
    lines: int
    taps: int
    stride: int
    step: int
    lanes: int
    contraction: Contraction = field(repr=False, compare=False)
    tap: Axis = field(repr=False, compare=False)
    weight: Turned | None = field(repr=False, compare=False)
    """The weights in another layout."""

    def columns(self, pixels: int) -> dict[int, list[tuple[int, int]]]:
        """{column of the input: (output, tap) that it counts to}, the first outputs first."""
        found: dict[int, list[tuple[int, int]]] = {}
        for p in range(pixels):
            for k in range(self.taps):
                found.setdefault(p * self.stride + k * self.step, []).append((p, k))
        return found


@dataclass(frozen=True)
class Decision:
    """Outputs of a thread along the row, neighbouring channels of each, threads of a block."""

    pixels: int
    lanes: int
    threads: int


class Depthwise:
    """Sliding windows over each channel on its own, channels innermost."""

    name = "depthwise"

    def match(self, kernel: Kernel) -> Workload | Declined:
        found = contraction(kernel)
        if isinstance(found, Declined):
            return found
        if found.cols or not found.batch or not found.rows or not found.reduce:
            return Declined("not a window over channels of their own")
        if found.after or found.kept:
            return Declined("the sum is read more than once")
        found = replace(found, batch=found.batch[:-1], cols=(found.batch[-1],))
        channel, (images, height, width) = found.cols[0], rows_of(found)
        across = slides_along(found, width)
        if isinstance(across, Declined):
            return across
        tap, (stride_, step) = across
        lines = known_size(axis for axis in found.reduce if axis is not tap)
        if tap.size is None or tap.size > MOST_TAPS or lines is None or channel.size is None:
            return Declined("the size of the window or the channels are not known, or too large")
        weight = turned(kernel, found, found.cols)
        if weight is not None:
            found = replace(found, rhs=replace(found.rhs, value=weight.value))
        lanes = _lanes(found, channel)
        if lanes == 1:
            return Declined("channels are not read in vectors")
        return Workload(
            known_size((*found.batch, *images)),
            1 if height is None else height.size,
            width.size,
            channel.size,
            lines,
            tap.size,
            stride_,
            step,
            lanes,
            found,
            tap,
            weight,
        )

    def choose(self, workload: Workload, arch: CudaArch) -> Decision:
        pixels = [p for p in range(1, MOST_PIXELS + 1) if _registers(workload, p) <= MOST_REGISTERS]
        best = min(pixels or [1], key=lambda p: _price(workload, p, arch))
        width = UNKNOWN_SIDE if workload.width is None else workload.width
        row = -(-width // best) * (workload.channels // workload.lanes)
        threads = min(BLOCKS, key=lambda t: (-(-row // t) * t, -t))
        return Decision(best, workload.lanes, threads)

    def apply(
        self, kernel: Kernel, workload: Workload, decision: Decision, arch: CudaArch
    ) -> Scheduled:
        func = kernel.func
        params, layouts = with_weight(func, workload.weight)
        body = _Builder(workload, decision).launch()
        return Scheduled(tirx.PrimFunc(params, body, func.ret_type, func.attrs), layouts)


def _lanes(found: Contraction, channel: Axis) -> int:
    """Neighbouring channels that all operands and results have side by side, as whole vectors."""
    axes = (*found.batch, *found.rows, *found.cols, *found.reduce)
    factors = [narrow(operand.value) for operand in (found.lhs, found.rhs)]
    if any(channel.var in outside_of_loads(value) for value in factors):
        return 1
    if any(called_ops(value) - {"prim.if_then_else"} for value in factors):
        return 1
    lanes = Epilogue(found).lanes
    for load in (load for value in factors for load in collect(value, TensorLoad)):
        step = stride(flat_index(load), channel.var, analyzer(axes, load.source.shape))
        if step is not None and constant(step) == 0:
            continue
        lanes = min(lanes, ACCESS_BYTES * 8 // dtype_bits(str(load.source.ty.dtype)))
        while lanes > 1 and not multiples(load, channel, lanes, axes):
            lanes //= 2
    return lanes


def _registers(work: Workload, pixels: int) -> int:
    """Of a thread: sums, weights of a line and a column of the input, all as 32 bits."""
    return (pixels + work.taps + 1) * work.lanes + OTHER_REGISTERS


def _price(work: Workload, pixels: int, arch: CudaArch) -> float:
    """Cycles: what the warps of a multiprocessor read from its cache, or multiply."""
    images, height, width = (
        unknown if n is None else max(n, 1)
        for n, unknown in (
            (work.images, 1),
            (work.height, UNKNOWN_SIDE),
            (work.width, UNKNOWN_SIDE),
        )
    )
    threads = images * height * -(-width // pixels) * (work.channels // work.lanes)
    vectors = work.lines * (len(work.columns(pixels)) + work.taps) + pixels
    reads = vectors * WARP * ACCESS_BYTES / SHARED_BYTES_PER_CYCLE
    multiplies = work.lines * work.taps * pixels * work.lanes * WARP / arch.fp32_fma
    return max(threads / WARP / arch.sms, BUSY_WARPS) * (reads + multiplies)


class _Builder:
    """One kernel under construction."""

    def __init__(self, work: Workload, plan: Decision) -> None:
        self.work, self.plan, self.sum = work, plan, work.contraction
        self.images, self.height, self.width = rows_of(self.sum)
        self.channel = self.sum.cols[0]
        self.factors = [narrow(operand.value) for operand in (self.sum.lhs, self.sum.rhs)]
        self.dtype = SUMS.get(self.sum.dtype, self.sum.dtype)
        self.epilogue = Epilogue(self.sum)
        self.lines = tuple(axis for axis in self.sum.reduce if axis is not work.tap)
        lanes = plan.lanes
        left, right = (str(value.ty.dtype) for value in self.factors)
        self.sums = allocate([plan.pixels * lanes], self.dtype, "sums", "local")
        self.column = allocate([lanes], left, "column", "local")
        self.weights = allocate([work.taps * lanes], right, "weights", "local")

    def launch(self) -> Stmt:
        work, plan = self.work, self.plan
        chunks = work.channels // plan.lanes
        row = known(ceildiv(known(self.width.extent), plan.pixels) * chunks)
        outer = (*self.sum.batch, *self.images)
        height: Size = 1 if self.height is None else known(self.height.extent)
        parts = ceildiv(row, plan.threads)
        grid = known(known(size(outer)) * height * parts)

        def body(number: Expr, x: Expr, _y: Expr) -> Stmt:
            rest, part = among(number, parts)
            image, line = among(rest, height)
            at = dict(axes_at(outer, image))
            if self.height is not None:
                at[self.height.var] = line
            flat = part * plan.threads + x
            first = flat // chunks * plan.pixels
            # Of an empty grid there is one block.
            inside = tirx.And(number < index(grid), flat < index(row))
            return when(inside, self._tile(at, first, flat % chunks * plan.lanes))

        return launch(grid, Block(plan.threads), body)

    def _tile(self, at: Values, first: Expr, channel: Expr) -> Stmt:
        plan = self.plan
        zero = tirx.const(0, self.dtype)
        clear = loop(
            plan.pixels * plan.lanes,
            lambda i: tirx.BufferStore(self.sums, zero, [i]),
            ForKind.UNROLLED,
        )

        def line(number: Expr) -> Stmt:
            return self._line({**at, **axes_at(self.lines, number)}, first, channel)

        return block(
            *map(tirx.AllocBuffer, (self.sums, self.column, self.weights)),
            clear,
            # Written out, ptxas spills: it asks for all lines at once.
            loop(self.work.lines, line, name="line"),
            *(self._leave(at, first + p, channel, p) for p in range(plan.pixels)),
        )

    def _line(self, at: Values, first: Expr, channel: Expr) -> Stmt:
        work, lanes = self.work, self.plan.lanes
        value, weight = self.factors
        parts = [
            self._vector(self.weights, k * lanes, weight, {**at, work.tap.var: index(k)}, channel)
            for k in range(work.taps)
        ]
        even = work.width is not None and work.width % self.plan.pixels == 0
        for uses in work.columns(self.plan.pixels).values():
            # The first output that the column counts to: without it there is none of the others.
            p, k = uses[0]
            point = {**at, self.width.var: first + p, work.tap.var: index(k)}
            read = self._vector(self.column, 0, value, point, channel)
            if p and not even:
                read = when(first + p < index(known(self.width.extent)), read)
            parts += [read, *(self._multiply(p, k) for p, k in uses)]
        return block(*parts)

    def _vector(self, into: Var, start: int, value: Expr, at: Values, channel: Expr) -> Stmt:
        """Neighbouring channels of a factor, read at once."""

        def one(v: Expr) -> Stmt:
            point = {**at, self.channel.var: channel + v}
            return tirx.BufferStore(into, substitute(value, point), [start + v])

        return neighbours(self.plan.lanes, one)

    def _multiply(self, p: int, k: int) -> Stmt:
        lanes = self.plan.lanes

        def one(v: Expr) -> Stmt:
            a, b = self.column[v], self.weights[k * lanes + v]
            where = p * lanes + v
            new = tirx.Cast(self.dtype, a) * tirx.Cast(self.dtype, b)
            return tirx.BufferStore(self.sums, self.sums[where] + new, [where])

        return loop(lanes, one, ForKind.UNROLLED, "v")

    def _leave(self, at: Values, x: Expr, channel: Expr, p: int) -> Stmt:
        lanes = self.plan.lanes
        put = self.epilogue.write(
            {**at, self.width.var: x}, channel, lambda v: self.sums[p * lanes + v], lanes
        )
        return put if p == 0 else when(x < index(known(self.width.extent)), put)
