"""Winograd's minimal filtering: the equations.

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

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product

from tvm import tirx
from tvm.ir import Expr, Var

from ..rule import Matrix

TAPS = 3

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
