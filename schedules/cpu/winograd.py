"""Winograd's minimal filtering: the equations, which convolutions they fit, and what they cost.

    Y = A^T [ (G g G^T) * (B^T d B) ] A          Lavin and Gray, arXiv 1509.09308, section 4

A tile of m outputs along each dim with a window of 3 takes m + 2 inputs `d` and as many products
with the transformed weight `g`, where direct summation takes 3 m. It holds for any number of dims:
2-d F(2, 3) has 16 products for 4 outputs and 36 taps. A channel is a column of all other equations,
so each of the (m + 2)^dims positions is a matrix product of tiles by channels.

Largest errors, as shares of the root mean square of the output, at 64 to 512 channels: 2e-6 to 3e-6
for F(2, 3), less than one sum after another has (4e-6 to 7e-6); 4e-5 for F(4, 3), which is not used
unless it is asked for. An infinity or a NaN in the input reaches all outputs of its tile.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import product
from math import prod

from tvm import tirx
from tvm.ir import Expr, Var

from tvmext.arch import Arch

from ..analysis import Axis, constant
from ..levels import LOADS, Product, product_cycles, register_tiles
from ..rule import Matrix
from .contraction import Contraction, usual_sizes
from .emit import ceildiv, index, known
from .padding import Bound, Padding, reach
from .tile import Shape

TAPS = 3

MOST_TILES = 14
"""Tiles in registers at once; they lie one after another, and so do not thrash a set of L1."""


Point = tuple[int, ...]
"""A position in a tile, one index for each of its dims."""


@dataclass(frozen=True)
class Filter:
    """F(m, 3) along one dim: the matrices B^T, G and A^T of the equation above."""

    inputs: Matrix
    weight: Matrix
    outputs: Matrix

    @property
    def size(self) -> int:
        """Inputs of a tile, and products."""
        return len(self.inputs)

    @property
    def step(self) -> int:
        """Outputs of a tile."""
        return len(self.outputs)


FILTERS: Mapping[int, Filter] = {
    2: Filter(
        inputs=((1, 0, -1, 0), (0, 1, 1, 0), (0, -1, 1, 0), (0, 1, 0, -1)),
        weight=((1, 0, 0), (1 / 2, 1 / 2, 1 / 2), (1 / 2, -1 / 2, 1 / 2), (0, 0, 1)),
        outputs=((1, 1, 1, 0), (0, 1, -1, -1)),
    ),
    4: Filter(
        inputs=(
            (4, 0, -5, 0, 1, 0),
            (0, -4, -4, 1, 1, 0),
            (0, 4, -4, -1, 1, 0),
            (0, -2, -1, 2, 1, 0),
            (0, 2, -1, -2, 1, 0),
            (0, 4, 0, -5, 0, 1),
        ),
        weight=(
            (1 / 4, 0, 0),
            (-1 / 6, -1 / 6, -1 / 6),
            (-1 / 6, 1 / 6, -1 / 6),
            (1 / 24, 1 / 12, 1 / 6),
            (1 / 24, -1 / 12, 1 / 6),
            (0, 0, 1),
        ),
        outputs=(
            (1, 1, 1, 1, 1, 0),
            (0, 1, -1, 2, -2, 0),
            (0, 1, 1, 4, 4, 0),
            (0, 1, -1, 8, -8, 1),
        ),
    ),
}


def transform(
    matrix: Matrix, values: Mapping[Point, Expr], dtype: str
) -> tuple[list[tirx.Stmt], dict[Point, Expr]]:
    """`values` multiplied by `matrix` along every dim: what to bind, and the names of the results.

    One dim after the other, so that sums are shared.
    """
    binds: list[tirx.Stmt] = []
    for dim in range(len(next(iter(values)))):
        moved: dict[Point, Expr] = {}
        for point in product(*(range(len(matrix) if d == dim else n) for d, n in _dims(values))):
            line = [(*point[:dim], j, *point[dim + 1 :]) for j in range(len(matrix[0]))]
            var = Var("t", dtype)
            total = _combination(matrix[point[dim]], [values[p] for p in line], dtype)
            binds.append(tirx.Bind(var, total))
            moved[point] = var
        values = moved
    return binds, dict(values)


def _dims(values: Mapping[Point, Expr]) -> list[tuple[int, int]]:
    return [(d, 1 + max(indices)) for d, indices in enumerate(zip(*values))]


def _combination(factors: tuple[float, ...], values: list[Expr], dtype: str) -> Expr:
    """``sum(factor * value)``, without the zeros, a positive term first if there is one."""
    terms = [(factor, value) for factor, value in zip(factors, values) if factor]
    (factor, total), *rest = sorted(terms, key=lambda term: term[0] < 0)
    total = total if factor == 1 else total * tirx.const(factor, dtype)
    for factor, value in rest:
        term = value if abs(factor) == 1 else value * tirx.const(abs(factor), dtype)
        total = total + term if factor > 0 else total - term
    return total


@dataclass(frozen=True, eq=False)
class Windows:
    """A convolution as the method sees it: the dims it slides over, and the channels it adds up."""

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

    def slides(self, axis: Axis) -> bool:
        return any(bound.axis.var.same_as(axis.var) for bound in self.bounds)

    def tiles(self, step: int) -> tuple[Axis, ...]:
        """The rows in tiles of `step` outputs along each dim."""
        return tuple(
            Axis(axis.var, index(ceildiv(known(axis.extent), step)), axis.kind)
            if self.slides(axis)
            else axis
            for axis in self.total.rows
        )


def windows(total: Contraction, weight_arg: int) -> Windows | None:
    """How `total` slides a window of 3 by steps of 1, or None if it does anything else."""
    found = reach(total)
    lhs, weight = total.lhs.load, total.rhs.load
    if found is None or lhs is None or weight is None:
        return None
    taps = [bound.tap for bound in found.bounds]
    rest = [axis for axis in total.reduce if axis not in taps]
    fits = (
        total.dtype == "float32",
        not total.batch and len(total.cols) == 1 and len(rest) == 1,
        taps and len(set(taps)) == len(taps),
        all((b.stride, b.step, b.tap.size) == (1, 1, TAPS) for b in found.bounds),
        total.rhs.value.same_as(weight),
        all(isinstance(at, Var) or constant(at) == 0 for at in weight.indices),
    )
    if not all(fits) or not lhs.indices[-1].same_as(rest[0].var):
        return None
    return Windows(total, found, rest[0], weight_arg)


@dataclass(frozen=True)
class Plan:
    """Winograd's method: `step` outputs along each dim, `tile.rows` tiles in registers at once."""

    step: int
    tile: Shape
    cycles: float


def best_plan(found: Windows, steps: Iterable[int], arch: Arch) -> Plan | None:
    """The plan of the least price among the filters `steps`; None without any that can be used."""
    channels, columns = found.sizes
    if channels % arch.vector_lanes("float32"):
        return None
    plans = [_plan(found, channels, columns, step, arch) for step in steps]
    return min(plans, key=lambda plan: plan.cycles, default=None)


def _plan(found: Windows, channels: int, columns: int, step: int, arch: Arch) -> Plan:
    """The register tile of the least price; the transforms are priced by their vector operations.

    The last register tile is computed in full.
    """
    lanes, used = arch.vector_lanes("float32"), FILTERS[step]
    dims = len(found.bounds)
    tiles = prod(
        -(-extent // step) if found.slides(axis) else extent
        for axis, extent in zip(found.total.rows, usual_sizes(found.total.rows))
    )
    points = used.size**dims

    def price(tile: tuple[int, int]) -> float:
        rows = -(-tiles // tile[0]) * tile[0]
        work = Product(rows, columns, channels)
        return points * product_cycles(work, *tile, lanes, arch.fma_units)

    best = min(register_tiles(arch.vector_registers, MOST_TILES), key=price)
    ends = 0.0
    for vectors, matrix in ((channels, used.inputs), (columns, used.outputs)):
        operations = 3 * points + _additions(matrix, dims)
        ends += tiles * -(-vectors // lanes) * operations / LOADS
    return Plan(step, Shape(*best, lanes), price(best) + ends)


def _additions(matrix: Matrix, dims: int) -> int:
    """Additions of a transform in `dims` dims."""
    lines = sum(sum(map(bool, row)) - 1 for row in matrix)
    outputs, inputs = len(matrix), len(matrix[0])
    return sum(lines * outputs**d * inputs ** (dims - 1 - d) for d in range(dims))
