"""Scatters of a few elements or rows: the data, and over it the updates where an index says so.

    out[x, s..] = updates[r, s..]   if x == indices[r], for the last such r
                  data[x, s..]      otherwise

A row of a cache that is written this way is read by whoever reads the cache, without a copy.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import TYPE_CHECKING, Any

from .gather import lookup_at
from .piece import Guard, Lookup, local
from .prims import UnmappedError
from .scope import Size
from .tensor import VirtualTensor, layered

if TYPE_CHECKING:
    from .rules import Operands

MAX_ROWS = 4
"""Updates that are at most this many become pieces: each element asks all of them."""

OUTSIDE = "outside"
"""The mode of a lookup whose value is compared with an index: it may be out of range."""


def scatter_nd(
    data: VirtualTensor, operands: Operands, indices: Any, updates: VirtualTensor
) -> VirtualTensor:
    """out = data;  out[indices[i.., 0], indices[i.., 1], .., s..] = updates[i.., s..], in order."""
    *lead, depth = operands.prims.shape(indices.ty)
    if not isinstance(depth, int):
        raise UnmappedError("the number of indices of a scatter is known only at run time")
    inner = [local(axis) for axis in range(depth, data.rank)]
    pieces = []
    for row in reversed(_rows(lead)):
        lookups = [
            lookup_at(operands, indices, [*row, k], data.shape[k], OUTSIDE) for k in range(depth)
        ]
        guards = [_hit(data, axis, lookup) for axis, lookup in enumerate(lookups)]
        pieces += updates.read(data.shape, [*row, *inner], lookups, guards)
    return layered(data.shape, [*pieces, *data.pieces])


def scatter_elements(
    data: VirtualTensor, operands: Operands, indices: Any, updates: VirtualTensor, axis: int
) -> VirtualTensor:
    """out = data;  out[.., indices[i, j, ..], ..] = updates[i, j, ..], the index along `axis`.

    Along the other axes the updates must be as large as the data.
    """
    axis %= data.rank
    shape = operands.prims.shape(indices.ty)
    if any(n != m for k, (n, m) in enumerate(zip(shape, data.shape)) if k != axis):
        raise UnmappedError("a scatter of elements into a part of the data")
    pieces = []
    for (row,) in reversed(_rows([shape[axis]])):
        place: list[Size] = [row if k == axis else local(k) for k in range(data.rank)]
        lookup = lookup_at(operands, indices, place, data.shape[axis], OUTSIDE)
        pieces += updates.read(data.shape, place, [lookup], [_hit(data, axis, lookup)])
    return layered(data.shape, [*pieces, *data.pieces])


def _rows(shape: Sequence[Size]) -> list[tuple[int, ...]]:
    """All indices of a small shape, in order."""
    sizes = [size for size in shape if isinstance(size, int)]
    rows = list(product(*map(range, sizes)))
    if len(sizes) != len(shape) or len(rows) > MAX_ROWS:
        raise UnmappedError("a scatter of many updates")
    return rows


def _hit(data: VirtualTensor, axis: int, lookup: Lookup) -> Guard:
    """That an element is where the index points to."""
    if data.shape[axis] == 1:
        raise UnmappedError("an index that can only be out of range")
    return Guard(local(axis) - lookup.symbol, 0, 1)
