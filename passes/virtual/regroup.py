"""The same map between other shapes of the same memory, with fewer divisions.

A reshape of memory is free, so a kernel may take its operands, and make its result, in whatever
shape keeps its indices simple:

    out[n, 12*64] <- x[12, n, 64]      out[i, j] = x[j//64, i, j%64]
    out[n, 12, 64] <- x[12, n, 64]     out[i, h, d] = x[h, i, d]          out split
    out[1, 4096, 8] <- x[1, 64, 64, 8]     out[i, j, c] = x[i, j//64, j%64, c]
    out[4096, 8] <- x[4096, 8]             out[j, c] = x[j, c]            operand and out merged
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Sequence
from dataclasses import replace

from tvmext.frontends.dims import floordiv, names_of
from tvmext.frontends.expr import atoms

from .operations import reshape
from .piece import Home, Piece
from .scope import Size
from .tensor import VirtualTensor

MAX_PIECES = 8
"""Tensors of more pieces keep their shape: trying others would take too long."""


def regrouped(tensor: VirtualTensor, shape_too: bool, fixed: Container[str] = ()) -> VirtualTensor:
    """The tensor over homes of other shapes (and of another shape itself, if `shape_too`).

    Homes keep their names and number of elements, and so does the tensor. Those named in `fixed`,
    and those that indices are looked up in, keep their shapes.
    """
    best = _merge_homes(tensor, fixed)
    if not shape_too or len(tensor.pieces) > MAX_PIECES:
        return best
    while shapes := [s for s in _split_shapes(tensor) if _simpler(tensor, s, best, fixed)]:
        tensor = reshape(tensor, shapes[0])
        best = _merge_homes(tensor, fixed)
    axis = 0
    while axis < best.rank - 1:
        size = tensor.shape[axis] * tensor.shape[axis + 1]
        shape = (*tensor.shape[:axis], size, *tensor.shape[axis + 2 :])
        merged = reshape(tensor, shape)
        candidate = _merge_homes(merged, fixed)
        if _cost(candidate) <= _cost(best):
            tensor, best = merged, candidate
        else:
            axis += 1
    return best


def _simpler(
    tensor: VirtualTensor, shape: Sequence[Size], best: VirtualTensor, fixed: Container[str]
) -> bool:
    return _cost(_merge_homes(reshape(tensor, shape), fixed)) < _cost(best)


def _split_shapes(tensor: VirtualTensor) -> Iterable[tuple[Size, ...]]:
    """The shape with one axis split where its index is divided."""
    for axis, size in enumerate(tensor.shape):
        for divisor in _divisors(tensor, axis):
            outer = floordiv(size, divisor)
            if outer not in (0, 1) and outer * divisor == size:
                yield (*tensor.shape[:axis], outer, divisor, *tensor.shape[axis + 1 :])


def _divisors(tensor: VirtualTensor, axis: int) -> list[Size]:
    """What the index along an axis is divided by, anywhere in the map; free of other indices."""
    found: dict[Size, None] = {}
    for value in _values(tensor.pieces):
        for atom in atoms(value):
            if atom.kind != "floordiv" or f"_x{axis}" not in names_of(atom.args[0]):
                continue
            if not any(name.startswith("_") for name in names_of(atom.args[1])):
                found[atom.args[1]] = None
    return sorted(found, key=str)


def _merge_homes(tensor: VirtualTensor, fixed: Container[str]) -> VirtualTensor:
    """The tensor with neighbouring axes of its homes made one, where that saves divisions."""
    if _cost(tensor) == (0, 0):
        return tensor
    looked_up = {lookup.home for piece in tensor.pieces for lookup in piece.lookups}
    for home in tensor.homes:
        if home in looked_up or home.name in fixed:
            continue
        axis = 0
        while axis < len(home.shape) - 1:
            merged = _merged(tensor, home, axis)
            if _cost(merged) < _cost(tensor):
                tensor = merged
                home = next(h for h in merged.homes if h.name == home.name)
            else:
                axis += 1
    return tensor


def _merged(tensor: VirtualTensor, home: Home, axis: int) -> VirtualTensor:
    """The tensor with two axes of a home made one."""
    inner = home.shape[axis + 1]
    wide = Home(home.name, (*home.shape[:axis], home.shape[axis] * inner, *home.shape[axis + 2 :]))
    pieces = []
    for piece in tensor.pieces:
        if piece.home == home:
            flat = piece.scope.simplify(piece.index[axis] * inner + piece.index[axis + 1])
            index = (*piece.index[:axis], flat, *piece.index[axis + 2 :])
            piece = replace(piece, home=wide, index=index)
        pieces.append(piece)
    return VirtualTensor(tensor.shape, tuple(pieces))


def _cost(tensor: VirtualTensor) -> tuple[int, int]:
    """Divisions and guards, then terms beyond one for each index."""
    values = list(_values(tensor.pieces))
    divisions = sum(_divisions(value) for value in values)
    guards = sum(len(piece.guards) for piece in tensor.pieces)
    terms = sum(max(len(atoms(value)) - 1, 0) for value in values)
    return divisions + guards, terms


def _divisions(value: Size) -> int:
    return sum(
        1 + sum(map(_divisions, atom.args)) for atom in atoms(value) if atom.kind == "floordiv"
    )


def _values(pieces: Iterable[Piece]) -> Iterable[Size]:
    for piece in pieces:
        yield from piece.index
        yield from (guard.value for guard in piece.guards)
