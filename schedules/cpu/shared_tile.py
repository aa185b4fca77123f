"""Tiles of a product by way of the function that products of a library share (tile_function.py).

Code for every height is most of what a product costs to compile whose number of rows is known at
run time only. It is there once for all that are as wide: a product is its loops, the call and its
epilogue. The sums go through L1, which is two accesses to each.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import prod

from tvm import tirx
from tvm.ir import Call, Expr, TensorLoad, Var

from ..kernel.analysis import REDUCE, Axis, analyzer, constant, flat_index, substitute
from ..kernel.contraction import Contraction, run_length
from ..kernel.emit import Values, allocate, block, index, least, loop, vectors
from . import masks
from .flat_rows import step_along
from .panel import Panel
from .panels import Pack, Weight
from .tile import RegisterTile, Shape
from .tile_function import ON_STACK, TILES, fetched_elements, tile_function

LEAST_STEPS = 128
"""Steps below which the call and the way through memory cost more than they save."""

LEAST_RUN = 16
"""Steps of a run below which going on to the next one costs too much."""

TYPES = ("float32", "float64")


@dataclass(frozen=True)
class Runs:
    """A sum over `count` runs of `steps` elements side by side, `jump` elements apart."""

    count: int
    steps: int
    jump: Expr


def runs(found: Contraction, value: Expr | None = None) -> Runs | None:
    """How the broadcast operand lies along the sum, if that is in runs; `value` if it is staged.

    A window of a picture is one run for each of its lines, merged heads are one for each.
    """
    load = found.lhs.value if value is None else value
    types = {found.dtype, str(load.ty.dtype), str(found.rhs.value.ty.dtype)}
    if not isinstance(load, TensorLoad) or len(types) > 1 or found.dtype not in TYPES:
        return None
    axes, names = _apart(found)
    ana = analyzer((*found.batch, *found.rows, *axes), load.source.shape)
    places = [ana.simplify(substitute(place, names)) for place in load.indices]
    access = tirx.BufferLoad(load.source, places)
    count, steps, jump = 1, 1, index(0)
    for axis in reversed(axes):
        step, extent = step_along(access, axis, ana), axis.size
        if step is None or extent is None:
            return None
        if count == 1 and constant(step) == steps:
            steps *= extent
        else:
            jump = step if count == 1 else jump
            if not ana.can_prove_equal(step, jump * count):
                return None
            count *= extent
    return Runs(count, steps, jump) if steps >= LEAST_RUN and count * steps >= LEAST_STEPS else None


def _apart(found: Contraction) -> tuple[list[Axis], dict[Var, Expr]]:
    """The axes of the sum, those in two that go on elsewhere after some steps; what those were."""
    axes: list[Axis] = []
    names: dict[Var, Expr] = {}
    for axis in found.reduce:
        run = run_length(found.lhs, axis)
        if run is None:
            axes.append(axis)
            continue
        outer, inner = (
            Axis(Var(name, "int64"), index(extent), REDUCE)
            for name, extent in (("run", (axis.size or 0) // run), ("k", run))
        )
        names[axis.var] = outer.var * run + inner.var
        axes += [outer, inner]
    return axes, names


@dataclass(frozen=True, eq=False)
class SharedTile:
    """The tiles of one product by way of the function that products share."""

    own: RegisterTile
    """The tile whose place the function takes; the epilogue stays its own."""
    lhs: Callable[[Values, Values], Expr]
    """The broadcast operand at a row and at a step of the sum: a load."""
    runs: Runs
    panels: Weight | Pack
    """Where `w` is."""
    heights: tuple[int, ...]
    ahead: bool = False
    """Whether tiles fetch the next panel."""
    narrow: tuple[Shape, ...] = ()
    """What takes the columns of a last panel that is not full, the narrowest first."""

    def tile(
        self, row: Callable[[Expr], Values], height: Expr, panel: Panel, number: Expr
    ) -> tirx.Stmt:
        """The `number`-th tile over a panel, of `height` rows, its epilogue and its stores."""
        shape, dtype = self.own.shape, self.own.sum.dtype
        sums, own_sums = _on_stack([shape.rows, shape.cols], dtype, shape.lanes, "sums")
        places, own_places = _on_stack([shape.rows], "int64", shape.rows, "places")

        def place(i: Expr) -> tirx.Stmt:
            return tirx.BufferStore(places, flat_index(self._first(panel, row(i))), [i])

        x = _start(self._first(panel, row(index(0))).source)

        return block(
            own_sums,
            own_places,
            loop(height, place, name="i"),
            self._summed(x, places, sums, panel, number, height),
            self._finished(row, height, panel, sums),
        )

    def _first(self, panel: Panel, row: Values) -> TensorLoad:
        """The first element of a row."""
        zero = {axis.var: index(0) for axis in self.own.sum.reduce}
        load = self.lhs({**panel.at, **row}, zero)
        assert isinstance(load, TensorLoad)
        return load

    def _summed(
        self, x: Expr, places: Var, sums: Var, panel: Panel, number: Expr, height: Expr
    ) -> tirx.Stmt:
        shape, chains = self.own.shape, self.own.chains
        steps = self.runs.count * self.runs.steps
        start = self.panels.first(panel)
        following = start
        if self.ahead:
            each = steps * fetched_elements(shape)
            done = panel.width * steps + least(number, TILES - 1) * each
            following = [*start[:-1], start[-1] + done]
        w, ahead = (
            tirx.address_of(tirx.BufferLoad(self.panels.buffer, place))
            for place in (start, following)
        )
        sizes = [index(self.runs.count), self.runs.jump, index(self.runs.steps)]
        sizes += [index(shape.cols), height]
        bits = sum(1 << height for height in self.heights)
        args = [x, _start(places), w, _start(sums), ahead, *sizes, index(bits)]

        def call(one: Shape) -> tirx.Stmt:
            function = tile_function(one, chains, self.own.sum.dtype)
            return tirx.Evaluate(Call(function, args, ret_ty="int32"))

        body = call(shape)
        for one in reversed(self.narrow if panel.ragged else ()):
            body = tirx.IfThenElse(panel.valid <= one.cols, call(one), body)
        return body

    def _finished(
        self, row: Callable[[Expr], Values], height: Expr, panel: Panel, sums: Var
    ) -> tirx.Stmt:
        """The epilogue and the stores, no element past the last column touched."""
        lanes, count = self.own.shape.lanes, self.own.shape.vectors
        if panel.ragged and not panel.masks:
            each = lambda i: lambda j: self.own.store(panel, row(i), j, sums[i, j])  # noqa: E731
            return loop(height, lambda i: panel.each(lanes, each(i)), name="i")

        def store(i: Expr) -> tirx.Stmt:
            at = row(i)
            return vectors(
                count,
                lanes,
                lambda j: self.own.store(panel, at, j, sums[i, j]),
                unroll=not self.own.heavy,
            )

        def masked(i: Expr) -> tirx.Stmt:
            return loop(count, lambda v: self._masked(row(i), panel, sums, i, v * lanes), name="v")

        whole = loop(height, store, name="i")
        if not panel.ragged:
            return whole
        part = loop(height, masked, name="i")
        return part if panel.never_full else tirx.IfThenElse(panel.full, whole, part)

    def _masked(self, row: Values, panel: Panel, sums: Var, i: Expr, first: Expr) -> tirx.Stmt:
        def at(lane: Expr) -> dict[Var, Expr]:
            total = {self.own.sum.total: sums[i, lane + first]}
            return {**row, **panel.at, **panel.cols(lane + first), **total}

        lanes = self.own.shape.lanes
        mask = masks.first(panel.valid - first, lanes)
        return masks.store_results(self.own.sum, at, mask, lanes)


def _on_stack(shape: list[int], dtype: str, lanes: int, name: str) -> tuple[Var, tirx.Stmt]:
    """A buffer that a function may write which is told where it is, aligned to `lanes` elements.

    TVM takes a KiB and more from a pool, and sees to no alignment beyond that of the element type.
    """
    view = allocate(shape, dtype, name)
    cells = allocate([prod(shape) // lanes], f"{dtype}x{lanes}", f"{name}_cells")
    data = tirx.buffer.buffer_data(cells)
    own = tirx.AllocBuffer(cells, annotations={ON_STACK: tirx.const(1, "int32")})
    return view, block(own, tirx.DeclBuffer(view, data=data))


def _start(buffer: Var) -> Expr:
    return tirx.address_of(tirx.BufferLoad(buffer, [index(0)] * len(buffer.shape)))
