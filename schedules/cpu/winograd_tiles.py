"""A convolution as Winograd's method sees it (winograd.py): its dims, and where its tiles lie.

Along a dim whose taps are d apart, so are the inputs and the outputs of a tile:

    first output of tile t = t // d * step * d + t % d
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from math import gcd

from tvm import tirx
from tvm.ir import Expr

from ..kernel.analysis import SPATIAL, Axis, analyzer, constant, stride, substitute
from ..kernel.contraction import Contraction, usual_sizes
from ..kernel.emit import Size, Values, bind_each, ceildiv, index, known, unravel
from .padding import Bound, Padding, reach
from .winograd import FILTERS, TAPS, Filter, Point


@dataclass(frozen=True, eq=False)
class Windows:
    """The dims that a window of 3 slides over by steps of 1, and the channels that are added up."""

    total: Contraction
    padding: Padding
    channels: Axis
    weight_arg: int

    @property
    def bounds(self) -> tuple[Bound, ...]:
        """The dims, in the order of the output."""
        return self.padding.bounds

    @property
    def sizes(self) -> tuple[int, int]:
        """Channels in and out, which a weight knows."""
        (column,) = self.total.cols
        assert self.channels.size is not None and column.size is not None
        return self.channels.size, column.size

    def chunk(self, lanes: int) -> int:
        """How many channels the vectors of the transformed input have: no more than `lanes`."""
        return gcd(self.sizes[0], lanes)


def windows(total: Contraction, weight_arg: int) -> Windows | None:
    """The windows of `total`, or None if it does anything else."""
    found = reach(total)
    lhs, weight = total.lhs.load, total.rhs.load
    if found is None or lhs is None or weight is None:
        return None
    taps = [bound.tap for bound in found.bounds]
    rest = [axis for axis in total.reduce if axis not in taps]
    fits = (
        total.dtype == "float32",
        len(total.cols) == 1 and len(rest) == 1,
        taps and len(set(taps)) == len(taps),
        all((bound.stride, bound.tap.size) == (1, TAPS) for bound in found.bounds),
        total.rhs.value.same_as(weight),
        all(any(at.same_as(tap.var) for at in weight.indices) for tap in taps),
    )
    if not all(fits):
        return None
    axes = (*total.batch, *total.rows, *total.reduce)
    step = stride(lhs.indices[-1], rest[0].var, analyzer(axes, lhs.source.shape))
    return Windows(total, found, rest[0], weight_arg) if constant(step) == 1 else None


@dataclass(frozen=True, eq=False)
class Tiles:
    """The tiles of F(`step`, 3) over the outputs of a convolution, counted through all images."""

    windows: Windows
    step: int

    @property
    def filter(self) -> Filter:
        return FILTERS[self.step]

    @cached_property
    def points(self) -> tuple[Point, ...]:
        """The positions in a tile's input."""
        return tuple(product(range(self.filter.size), repeat=len(self.windows.bounds)))

    @cached_property
    def axes(self) -> tuple[Axis, ...]:
        """The rows of the convolution, in tiles where the window slides."""
        extents = [known(axis.extent) for axis in self.windows.total.rows]
        return tuple(
            Axis(axis.var, index(extent), SPATIAL)
            for axis, extent in zip(self.windows.total.rows, self._counts(extents))
        )

    def usual_count(self) -> int:
        """How many there are, with usual sizes for what is not known."""
        count = 1
        for extent in self._counts(usual_sizes(self.windows.total.rows)):
            assert isinstance(extent, int)
            count *= extent
        return count

    def _counts(self, extents: Iterable[Size]) -> Iterator[Size]:
        apart = {bound.axis.var: bound.step for bound in self.windows.bounds}
        for axis, extent in zip(self.windows.total.rows, extents):
            d = apart.get(axis.var)
            yield extent if d is None else known(ceildiv(extent, self.step * d) * d)

    def place(self, number: Expr, body: Callable[[Values], tirx.Stmt]) -> tirx.Stmt:
        """Where the first output of tile `number` is, for `body`."""
        at = unravel(number, self.axes)
        for bound in self.windows.bounds:
            tile, d = at[bound.axis.var], bound.step
            first = tile * self.step if d == 1 else tile // d * (self.step * d) + tile % d
            at[bound.axis.var] = first
        return bind_each(at, body)

    def inputs(self, at: Values, point: Sequence[Size], channel: Expr) -> Expr:
        """The input of the tile at `at` that is needed for `point`, which has to exist."""
        taps = {bound.tap.var: index(i) for bound, i in zip(self.windows.bounds, point)}
        values = {**at, **taps, self.windows.channels.var: channel}
        return substitute(self.windows.padding.value, values)

    def inside(self, at: Values) -> Expr | None:
        """Whether all inputs of the tile at `at` exist; None if those of every tile do."""
        if not self._padded:
            return None
        first = [index(0)] * len(self.windows.bounds)
        last = [index(self.filter.size - 1)] * len(self.windows.bounds)
        return tirx.all(*self._limits(at, first, last))

    def exists(self, at: Values, point: Sequence[Expr]) -> Expr:
        """Whether the input of the tile at `at` exists that is needed for `point`."""
        return tirx.all(*self._limits(at, point, point))

    def _limits(self, at: Values, first: Sequence[Expr], last: Sequence[Expr]) -> Iterator[Expr]:
        """The inputs for `first` to `last` exist if each of these holds."""
        for bound, low, high in zip(self.windows.bounds, first, last):
            if bound in self._padded:
                assert bound.low is not None and bound.high is not None
                start = at[bound.axis.var]
                yield start + low * bound.step >= bound.low
                yield start + high * bound.step < bound.high

    @cached_property
    def _padded(self) -> tuple[Bound, ...]:
        """The dims along which inputs of some tiles do not exist."""
        return tuple(bound for bound in self.windows.bounds if not self._always_inside(bound))

    def _always_inside(self, bound: Bound) -> bool:
        extent = known(bound.axis.extent)
        if bound.low != 0 or not isinstance(extent, int) or not isinstance(bound.high, int):
            return False
        d = bound.step
        return (-(-extent // (self.step * d)) * self.step + TAPS - 1) * d <= bound.high

    def outputs(self, at: Values) -> Iterator[tuple[Point, Values, Expr | None]]:
        """The outputs of the tile at `at`: in the tile, among the rows, and if not all exist."""
        for point in product(range(self.step), repeat=len(self.windows.bounds)):
            there = dict(at)
            exists: list[Expr] = []
            for bound, i in zip(self.windows.bounds, point):
                place = there[bound.axis.var] = at[bound.axis.var] + i * bound.step
                extent, span = known(bound.axis.extent), self.step * bound.step
                first_exists = i == 0 and bound.step == 1
                if not first_exists and not (isinstance(extent, int) and extent % span == 0):
                    exists.append(place < index(extent))
            yield point, there, tirx.all(*exists) if exists else None
