"""The code of a matrix product by warpgroups of sm_90a.

for tile of rows x tile of columns, batch, part of the sum:           one block of threads
    one warpgroup brings:                   the others multiply:
        for each step of the sum:               for each step of the sum:
            wait until its place is empty           wait until its place is full
            ask for both tiles                      wgmma from shared memory, as many as it takes
                                                    the place of the step before is empty
    out[...] = epilogue(sums)                                         through shared memory
"""

from __future__ import annotations

from collections.abc import Sequence

from tvm import tirx
from tvm.ir import Expr
from tvm.tirx import ForKind, Stmt

from tvmext.arch import dtype_bits
from tvmext.arch.cuda import WARP

from ..kernel.contraction import Contraction, size
from ..kernel.emit import Size, Values, allocate, block, ceildiv, index, known, loop
from . import hopper_ptx, ptx
from .grid import Work, unless_empty
from .hopper_ptx import Matrix
from .launch import sync, when
from .operand import Source
from .results import SLAB, Results
from .tensor_map import Strided, TensorMap
from .tile import Loader, Tile, held
from .wgmma_choice import BARRIER_BYTES, GROUP_ROWS, WARPGROUP, Decision, panel


class Builder:
    """One kernel under construction; `tensors` are the operands that a tensor map describes."""

    def __init__(
        self,
        found: Contraction,
        plan: Decision,
        sources: tuple[Source, Source],
        tensors: tuple[Strided | None, Strided | None],
        types: tuple[str, str],
        sums: str,
    ) -> None:
        self.sum, self.plan = found, plan
        dtype = sources[0].dtype
        self.bits = dtype_bits(dtype)
        self.depth = known(size(found.reduce))
        self.kind = "float32" if sums == "f32" else "int32"
        # The operands, or the results, and the barriers.
        self.buffer = tirx.decl_buffer(
            [index(plan.shared(dtype) // 4)],
            self.kind,
            "tiles",
            scope="shared.dyn",
            data_alignment=1024,
        )
        self.barriers = plan.shared(dtype) - plan.barriers
        self.tiles = tuple(
            self._tile(source, start, extent)
            for source, start, extent in zip(
                sources, (0, plan.stages * plan.rows * plan.depth), (plan.rows, plan.cols)
            )
        )
        self.maps = tuple(
            None if tensor is None else self._map(name, tile, tensor)
            for name, tile, tensor in zip(("lhs_map", "rhs_map"), self.tiles, tensors)
        )
        self.copies = any(
            tile.way == "async" and tensor is None for tile, tensor in zip(self.tiles, self.maps)
        )
        self.held = tuple(held(tile, f"held_{i}") for i, tile in enumerate(self.tiles))
        self.sums = allocate([plan.sums], self.kind, "sums", "local")
        a, b = (self._matrix(tile) for tile in self.tiles)
        self.multiply = hopper_ptx.Multiply(*types, sums, plan.cols, a, b)
        steps = ceildiv(self.depth, plan.depth)
        self.results = Results(
            found, self.kind, plan.groups * 4, plan.cols, plan, steps, self.buffer
        )

    def _tile(self, source: Source, start: int, extent: int) -> Tile:
        plan, across = self.plan, not source.inward
        width = panel((extent if across else plan.depth) * self.bits // 8) * 8 // self.bits
        return Tile(
            source,
            self.buffer,
            start,
            extent,
            plan.depth,
            plan.stages,
            WARPGROUP,
            "async" if source.load is not None else "held",
            across,
            width,
        )

    def _map(self, name: str, tile: Tile, tensor: Strided) -> TensorMap:
        assert tile.panel is not None
        return TensorMap(
            name, tensor, tile.dtype, tile.panel, tile.depth if tile.across else tile.extent
        )

    def _matrix(self, tile: Tile) -> Matrix:
        assert tile.panel is not None
        width = tile.panel * self.bits // 8
        rows = tile.depth if tile.across else tile.extent
        return Matrix(width, tile.across, 8 * width, rows * width if tile.across else 16)

    def launch(self) -> Stmt:
        maps = [one.encode() for one in self.maps if one is not None]
        product = self.results.launch(self._tile_of, self._before)
        return unless_empty(self.sum, block(*maps, product))

    def _before(self, thread: Expr) -> Stmt:
        buffers = map(tirx.AllocBuffer, (self.buffer, self.sums))
        return block(*buffers, when(thread < 1, self._set_up()), sync())

    def _tile_of(self, work: Work, thread: Expr) -> Stmt:
        """What a block does of a tile."""
        plan = self.plan
        # Of those that bring, rows have to have a sign too: quotients of them are short then.
        group, lane = tirx.max(thread // WARPGROUP - 1, index(0)), thread % WARP
        first = work.row + group * (plan.blocks * GROUP_ROWS) + thread % WARPGROUP // WARP * SLAB
        multiplies = thread >= WARPGROUP
        return block(
            loop(plan.sums, self._zero, ForKind.UNROLLED),
            when(multiplies, self._consume(work, group, lane), self._produce(work, thread)),
            sync(),
            self.results.leave(
                self.sums,
                [first + i * GROUP_ROWS for i in range(plan.blocks)],
                work.column,
                work,
                tirx.max(thread // WARP - WARPGROUP // WARP, index(0)),
                lane,
                multiplies,
            ),
            # Maps bring the next tile's operands to where the results have been.
            hopper_ptx.fence_proxy() if plan.stream else None,
        )

    def _zero(self, i: Expr) -> Stmt:
        return tirx.BufferStore(self.sums, tirx.const(0, self.kind), [i])

    def _full(self, stage: Size) -> Expr:
        return ptx.address(self.buffer, self.barriers + stage * BARRIER_BYTES, "uint8")

    def _empty(self, stage: Size) -> Expr:
        return self._full(stage + self.plan.stages)

    def _set_up(self) -> Stmt:
        """A step is full when all is there that maps, copies and threads bring; a warp empties it.

        Copies arrive by themselves, a thread when it has stored what it worked out.
        """
        ways = {tile.way for tile, tensor in zip(self.tiles, self.maps) if tensor is None}
        arrivals = any(self.maps) + WARPGROUP * len(ways)
        inits = [
            hopper_ptx.barrier_init(place(index(stage)), count)
            for place, count in ((self._full, arrivals), (self._empty, self.plan.groups * 4))
            for stage in range(self.plan.stages)
        ]
        return block(*inits, hopper_ptx.fence_proxy())

    def _turn(self, step: Expr) -> tuple[Expr, Expr]:
        """(stage, parity of its phase) of a step."""
        stages = index(self.plan.stages)
        return tirx.truncmod(step, stages), tirx.truncmod(tirx.truncdiv(step, stages), index(2))

    def _produce(self, work: Work, thread: Expr) -> Stmt:
        plan, inner, at = self.plan, self.sum.reduce, work.at
        firsts = (work.row, work.column)
        loaders = [
            Loader(tile, own, inner, at, first, known(size(own)), self.depth, registers)
            for tile, own, first, registers in zip(
                self.tiles, (self.sum.rows, self.sum.cols), firsts, self.held
            )
        ]
        rest = [one for one, tensor in zip(loaders, self.maps) if tensor is None]
        copied = [one for one in rest if one.tile.way == "async"]
        worked = [one for one in rest if one.tile.way == "held"]
        alone = thread < 1

        def ask(number: Expr) -> list[Stmt]:
            """Read what is worked out of it, while others still use the place that it goes to."""
            k = (work.first + number) * plan.depth
            return [one.issue(index(0), k, thread) for one in worked]

        def step(number: Expr) -> Stmt:
            stage, parity = self._turn(work.done + number)
            k = (work.first + number) * plan.depth
            boxes = self._boxes(at, firsts, stage, k)
            told = [hopper_ptx.fence_proxy(), hopper_ptx.arrive(self._full(stage))]
            return block(
                hopper_ptx.barrier_wait(self._empty(stage), 1 - parity),
                (when(alone, boxes) if rest else boxes) if any(self.maps) else None,
                *(one.issue(stage, k, thread) for one in copied),
                hopper_ptx.arrive_with_copies(self._full(stage)) if copied else None,
                *(one.deliver(stage, thread) for one in worked),
                *(told + ask(number + 1) if worked else []),
            )

        bring = loop(work.steps, step, name="step")
        buffers = [tirx.AllocBuffer(one.held) for one in worked]
        bring = block(*buffers, *ask(index(0)), bring)
        return bring if rest else when(alone, bring)

    def _boxes(self, at: Values, firsts: Sequence[Expr], stage: Expr, k: Expr) -> Stmt:
        """Ask for what the maps bring of a step."""
        parts: list[Stmt] = []
        total = 0
        for tile, tensor, first in zip(self.tiles, self.maps, firsts):
            if tensor is None:
                continue
            width = tile.extent if tile.across else tile.depth
            minor, major = (first, k) if tile.across else (k, first)
            total += tile.size * self.bits // 8
            for offset in range(0, width, tensor.box[0]):
                target = tile.place(stage, index(0), index(offset))
                parts.append(
                    tensor.copy(
                        tile.address(target),
                        minor + offset,
                        major,
                        at,
                        self._full(stage),
                    )
                )
        return block(hopper_ptx.arrive_expecting(self._full(stage), total), *parts)

    def _consume(self, work: Work, group: Expr, lane: Expr) -> Stmt:
        plan = self.plan
        sums = ptx.address(self.sums, 0)

        def step(number: Expr) -> Stmt:
            stage, parity = self._turn(work.done + number)
            before, _ = self._turn(work.done + number + (plan.stages - 1))
            return block(
                hopper_ptx.barrier_wait(self._full(stage), parity),
                hopper_ptx.fence_proxy() if self.copies else None,
                hopper_ptx.fence(sums, self.kind, plan.sums),
                self._products(stage, group),
                hopper_ptx.commit(),
                hopper_ptx.wait(1, sums, self.kind, plan.sums),
                when(tirx.And(number > 0, lane < 1), hopper_ptx.arrive(self._empty(before))),
            )

        # Where another tile follows, it waits for the last step's place as well.
        last, _ = self._turn(work.done + (work.steps - 1))
        return block(
            loop(work.steps, step, name="step"),
            hopper_ptx.wait(0, sums, self.kind, plan.sums),
            when(lane < 1, hopper_ptx.arrive(self._empty(last))) if plan.stream else None,
        )

    def _products(self, stage: Expr, group: Expr) -> Stmt:
        plan = self.plan
        lhs, rhs = self.tiles
        deep = ptx.STEP_BYTES * 8 // self.bits
        parts: list[Stmt] = []
        for k in range(0, plan.depth, deep):
            for i in range(plan.blocks):
                own = group * (plan.blocks * GROUP_ROWS) + i * GROUP_ROWS
                parts.append(
                    self.multiply(
                        ptx.address(self.sums, i * plan.cols // 2),
                        lhs.address(self._origin(lhs, stage, own, k)),
                        rhs.address(self._origin(rhs, stage, index(0), k)),
                    )
                )
        return block(*parts)

    def _origin(self, tile: Tile, stage: Expr, own: Expr, k: int) -> Expr:
        """Where the part of a tile from (own, k) begins, before the swizzle."""
        assert tile.panel is not None
        start = tile.start + stage * tile.size
        if tile.across:
            # own is at the beginning of a panel
            return start + own * tile.depth + k * tile.panel
        return start + own * tile.panel + k
