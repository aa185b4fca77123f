"""Virtual tensors evaluated with NumPy: the oracle of the tests, and how constants are folded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import reduce

import numpy as np

from tvmext.frontends.dims import evaluate
from tvmext.frontends.expr import Atom

from ..indexing import positions
from .piece import Fill, Lookup, Piece
from .scope import Size
from .tensor import VirtualTensor

Values = Mapping[str, "int | np.ndarray"]


def materialize(
    tensor: VirtualTensor,
    arrays: Mapping[str, np.ndarray],
    sizes: Mapping[str, int] | None = None,
    dtype: np.dtype | None = None,
) -> np.ndarray:
    """All elements, read from `arrays` (by name of home) with the dims bound by `sizes`.

    `dtype` is that of the result; by default the first home's. Raises IndexError if a map reads
    outside its home, ValueError if an element has no piece: both are defects of the map.
    """
    sizes = sizes or {}
    shape = tuple(evaluate(size, sizes) for size in tensor.shape)
    result = np.zeros(shape, dtype or _dtype(tensor, arrays))
    missing = np.ones(shape, bool)
    for piece in tensor.pieces:
        _write(piece, arrays, sizes, result, missing)
    if missing.any():
        raise ValueError(f"no piece covers element {tuple(np.argwhere(missing)[0])} of {tensor}")
    return result


def _write(
    piece: Piece,
    arrays: Mapping[str, np.ndarray],
    sizes: Mapping[str, int],
    result: np.ndarray,
    missing: np.ndarray,
) -> None:
    """Fills in the elements of one piece that no earlier piece had."""
    origin = [evaluate(o, sizes) for o in piece.origin]
    extent = [max(evaluate(e, sizes), 0) for e in piece.extent]
    box = tuple(slice(o, o + e) for o, e in zip(origin, extent, strict=True))
    place = np.argwhere(missing[box])  # one row of local coordinates for each element
    values: dict[str, int | np.ndarray] = {**sizes}
    values |= {f"_x{axis}": coordinate for axis, coordinate in enumerate(place.T)}
    # A guard may protect a lookup: only what it lets through is looked up.
    for step in piece.steps:
        if isinstance(step, Lookup):
            found = _looked_up(step, arrays, values)
            values[step.name] = np.broadcast_to(found, len(place))
            continue
        value = _evaluate(step.value, values)
        passes = (value >= _evaluate(step.low, values)) & (value < _evaluate(step.high, values))
        passes = np.broadcast_to(passes, len(place))
        place = place[passes]
        values |= {name: v[passes] for name, v in values.items() if isinstance(v, np.ndarray)}
    target = tuple((place + np.array(origin, int)).T)
    if isinstance(piece.home, Fill):
        result[target] = piece.home.value
    else:
        index = [np.broadcast_to(_evaluate(i, values), len(place)) for i in piece.index]
        result[target] = _read(arrays[piece.home.name], index)
    missing[target] = False


def _read(array: np.ndarray, index: Sequence[int | np.ndarray]) -> np.ndarray:
    """array[index], negative indices being mistakes."""
    if any(np.any(np.asarray(i) < 0) for i in index):
        raise IndexError(f"an index into a tensor of shape {array.shape} is negative")
    return array[tuple(index)]


def _looked_up(lookup: Lookup, arrays: Mapping[str, np.ndarray], values: Values) -> np.ndarray:
    index = [_evaluate(i, values) for i in lookup.index]
    extent = _evaluate(lookup.extent, values)
    found = np.asarray(_read(arrays[lookup.home.name], index)).astype(np.int64)
    return positions(found, int(extent), lookup.mode)


def _evaluate(value: Size, values: Values) -> int | np.ndarray:
    """The expression over arrays of index values."""
    if isinstance(value, int):
        return value
    total: int | np.ndarray = 0
    for monomial, coefficient in value.terms:
        term: int | np.ndarray = coefficient
        for atom in monomial:
            term = term * _evaluate_atom(atom, values)
        total = total + term
    return total


def _evaluate_atom(atom: Atom, values: Values) -> int | np.ndarray:
    if atom.kind == "symbol":
        return values[atom.text]
    args = [_evaluate(arg, values) for arg in atom.args]
    if atom.kind == "floordiv":
        return args[0] // args[1]
    return reduce(np.minimum if atom.kind == "min" else np.maximum, args)


def _dtype(tensor: VirtualTensor, arrays: Mapping[str, np.ndarray]) -> np.dtype:
    for piece in tensor.pieces:
        if not isinstance(piece.home, Fill):
            return arrays[piece.home.name].dtype
    return np.dtype("float32")
