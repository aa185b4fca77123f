"""Gathers: constant indices become slices where they can, others are looked up when it runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tvmext.frontends.dims import substitute

from ..indexing import MODES, positions
from . import operations as ops
from .piece import Home, Lookup, local, locals_of
from .prims import UnmappedError
from .scope import Size
from .tensor import VirtualTensor

if TYPE_CHECKING:
    from .rules import Operands

MAX_SLICES = 4
"""Constant indices that are at most this many slices become slices, not a table."""


def take(x: VirtualTensor, operands: Operands, indices: Any, axis: int, mode: str) -> VirtualTensor:
    """out[a.., i.., b..] = x[a.., indices[i..], b..]"""
    axis %= x.rank
    if mode not in MODES:
        raise UnmappedError(f"take of mode {mode}, which makes values that x does not have")
    index_shape = operands.prims.shape(indices.ty)
    shape = (*x.shape[:axis], *index_shape, *x.shape[axis + 1 :])
    constant = operands.values(indices)
    if constant is not None:
        sliced = _as_slices(x, constant, axis, mode)
        if sliced is not None:
            return ops.reshape(sliced, shape)
    place = [local(axis + k) for k in range(len(index_shape))]
    lookup = lookup_at(operands, indices, place, x.shape[axis], mode)
    return ops.take(x, lookup, axis, len(index_shape), shape)


def gather_elements(x: VirtualTensor, operands: Operands, indices: Any, axis: int) -> VirtualTensor:
    """out[i, j, ..] = x[indices[i, j, ..], j, ..], the index taking the place of `axis`."""
    axis %= x.rank
    shape = operands.prims.shape(indices.ty)
    lookup = lookup_at(operands, indices, locals_of(len(shape)), x.shape[axis], "fast")
    index: list[Size] = list(locals_of(x.rank))
    index[axis] = lookup.symbol
    return x.remap(shape, index, (lookup,))


def gather_nd(x: VirtualTensor, operands: Operands, indices: Any, batch_dims: int) -> VirtualTensor:
    """out[b.., i.., s..] = x[b.., indices[b.., i.., 0], indices[b.., i.., 1], .., s..]"""
    index_shape = operands.prims.shape(indices.ty)
    depth = index_shape[-1]
    if not isinstance(depth, int):
        raise UnmappedError("the number of indices of a gather_nd is known only at run time")
    outer = len(index_shape) - 1
    shape = (*index_shape[:-1], *x.shape[batch_dims + depth :])
    # by columns: indices stacked from several tensors are then one tensor each
    virtual = operands.tensor(indices)
    columns = [ops.squeeze(ops.slices(virtual, -1, k, 1), -1) for k in range(depth)]
    if not all(map(_is_view, columns)):
        stored = operands.stored(indices)
        columns = [ops.squeeze(ops.slices(stored, -1, k, 1), -1) for k in range(depth)]
    where = {f"_x{axis}": local(axis) for axis in range(outer)}
    lookups = [
        lookup_of(column, where, x.shape[batch_dims + k], "fast")
        for k, column in enumerate(columns)
    ]
    index: list[Size] = [local(k) for k in range(batch_dims)]
    index += [lookup.symbol for lookup in lookups]
    index += [local(outer + k) for k in range(x.rank - batch_dims - depth)]
    return x.remap(shape, index, lookups)


def lookup_at(
    operands: Operands, indices: Any, place: Sequence[Size], extent: Size, mode: str
) -> Lookup:
    """The index at `place` of `indices`, read where those are: their home, if they are a view."""
    virtual = operands.tensor(indices)
    if not _is_view(virtual):
        virtual = operands.stored(indices)
    where = {f"_x{axis}": index for axis, index in enumerate(place)}
    return lookup_of(virtual, where, extent, mode)


def _is_view(indices: VirtualTensor) -> bool:
    """Whether every element is in one home, at an index that is not looked up itself."""
    return indices.only is not None and not indices.only.lookups


def lookup_of(indices: VirtualTensor, where: Mapping[str, Size], extent: Size, mode: str) -> Lookup:
    """The integer at an index of a tensor, read from that tensor's home.

    `where` gives the index, by name of axis. Raises UnmappedError if the tensor is not a view.
    """
    source = indices.only
    if source is None or not isinstance(source.home, Home) or not _is_view(indices):
        raise UnmappedError("the indices are put together from several tensors")
    return Lookup(source.home, tuple(substitute(i, where) for i in source.index), extent, mode)


def _as_slices(x: VirtualTensor, indices: np.ndarray, axis: int, mode: str) -> VirtualTensor | None:
    """x.take(indices.ravel(), axis) as a concat of a few slices; None if it takes too many."""
    size = x.shape[axis]
    if isinstance(size, int) and size:
        indices = positions(indices, size, mode)
    elif mode != "fast":
        return None
    runs = _runs([int(index) for index in indices.ravel()])
    if not runs or len(runs) > MAX_SLICES or indices.min() < 0:
        return None
    return ops.concat([ops.slices(x, axis, start, n, step) for start, n, step in runs], axis)


def _runs(indices: Sequence[int]) -> list[tuple[int, int, int]]:
    """Arithmetic progressions (start, count, step) that follow one another, taken greedily."""
    runs: list[tuple[int, int, int]] = []
    k = 0
    while k < len(indices):
        step = indices[k + 1] - indices[k] if k + 1 < len(indices) else 1
        end = k + 1
        while step and end < len(indices) and indices[end] - indices[end - 1] == step:
            end += 1
        runs.append((indices[k], end - k, step if end - k > 1 else 1))
        k = end
    return runs
