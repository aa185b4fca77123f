"""What reading through a map costs in kind: nothing, a view, long runs, strides, or a gather.

With the home row-major, element x of a piece is at ``offset(x) = sum of index_k(x) * stride_k``.
The *run* is the number of consecutive elements of the virtual tensor that are also consecutive in
memory: a whole number of innermost axes, or a part of one. VTC (arXiv 2604.09558, section 4.3)
calls a map profitable for sure when the run is everything ("type I"), likely so when it is at least
a memory transaction.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from math import gcd

from tvmext.frontends.dims import names_of, product, substitute
from tvmext.frontends.expr import Atom, atoms

from .piece import Home, Piece, local, scope_of
from .scope import Size
from .tensor import VirtualTensor


class Access(Enum):
    """Kinds of access, cheapest first."""

    IDENTITY = "identity"
    VIEW = "view"  # one run, at a constant offset
    RUNS = "runs"  # runs of more than one element
    STRIDED = "strided"  # offsets affine in the indices, single elements
    GATHER = "gather"  # anything else


@dataclass(frozen=True)
class Profile:
    """How a virtual tensor meets memory.

    `run` is in elements: the shortest run of all pieces that are read. `offset` is where a view
    starts, in elements; None unless `access` is IDENTITY or VIEW.
    """

    access: Access
    run: Size
    offset: Size | None = None


def classify(tensor: VirtualTensor) -> Profile:
    """The profile of a tensor."""
    only = tensor.only
    if only is not None:
        offset = _offset(only)
        start = only.scope.simplify(offset - _linear(only.extent))
        if all(not name.startswith(("_x", "_t")) for name in names_of(start)):
            same = start == 0 and only.home.shape == tensor.shape
            return Profile(Access.IDENTITY if same else Access.VIEW, product(tensor.shape), start)
    read = [piece for piece in tensor.pieces if isinstance(piece.home, Home)]
    runs = [_run(piece, tensor.shape) for piece in read]
    shortest = min(runs, key=lambda run: (not isinstance(run, int), str(run)), default=1)
    if shortest != 1:
        return Profile(Access.RUNS, shortest)
    strided = all(_affine(piece) for piece in read) and len(tensor.pieces) == 1
    return Profile(Access.STRIDED if strided else Access.GATHER, 1)


def _linear(shape: Sequence[Size]) -> Size:
    """The row-major offset of an index in `shape`."""
    total: Size = 0
    for axis, size in enumerate(shape):
        total = total * size + local(axis)
    return total


def _offset(piece: Piece) -> Size:
    """The row-major offset in the home, simplified."""
    total: Size = 0
    for index, size in zip(piece.index, piece.home.shape, strict=True):
        total = total * size + index
    return piece.scope.simplify(total)


def _affine(piece: Piece) -> bool:
    """Whether the offset is a sum of index variables times sizes."""
    return not piece.guards and all(
        atom.kind == "symbol" and not atom.text.startswith("_t")
        for index in piece.index
        for atom in atoms(index)
        if not names_of_atom(atom).isdisjoint(piece.scope.extents)
    )


def names_of_atom(atom: Atom) -> frozenset[str]:
    """The symbols an atom depends on."""
    if atom.kind == "symbol":
        return frozenset((atom.text,))
    return frozenset(name for arg in atom.args for name in names_of(arg))


def _run(piece: Piece, shape: Sequence[Size]) -> Size:
    """Elements that are consecutive in both the tensor and the home."""
    guarded = {name for guard in piece.guards for name in names_of(guard.value)}
    offset = _offset(piece)
    run: Size = 1
    for axis in reversed(range(len(shape))):
        if shape[axis] == 1:
            continue
        if f"_x{axis}" in guarded:
            return run
        if _step(offset, axis, piece) != run:
            return run * _partial(offset, axis, run, piece)
        run = run * piece.extent[axis]
        if piece.extent[axis] != shape[axis]:
            return run
    return run


def _step(offset: Size, axis: int, piece: Piece) -> Size | None:
    """How far the offset moves for one step along the axis; None if that is not constant."""
    ahead = substitute(offset, {f"_x{axis}": local(axis) + 1}) - offset
    inner = any(
        f"_x{axis}" in names_of_atom(atom) for atom in atoms(offset) if atom.kind != "symbol"
    )
    if inner or any(name in piece.scope.extents for name in names_of(ahead)):
        return None
    return ahead


def _partial(offset: Size, axis: int, stride: Size, piece: Piece) -> Size:
    """The part of an axis that still continues the run: within one quotient of its divisions."""
    divisors = _divisors(offset, axis)
    chunk = gcd(*divisors) if divisors else 1
    if chunk <= 1:
        return 1
    fine = len(piece.extent)
    scope = scope_of((*piece.extent, chunk), piece.lookups)
    moved = {f"_x{axis}": chunk * local(axis) + local(fine)}
    inside = scope.simplify(substitute(offset, moved))
    wide = Piece(piece.origin, (*piece.extent, chunk), piece.home, piece.index, (), piece.lookups)
    return chunk if _step(inside, fine, wide) == stride else 1


def _divisors(offset: Size, axis: int) -> list[int]:
    """The constant divisors of all quotients that depend on the axis; [1] for a symbolic one."""
    found: list[int] = []
    for atom in atoms(offset):
        if atom.kind == "symbol" or f"_x{axis}" not in names_of_atom(atom):
            continue
        divisor = atom.args[1] if atom.kind == "floordiv" else 1
        found.append(divisor if isinstance(divisor, int) else 1)
        found += [n for arg in atom.args for n in _divisors(arg, axis)]
    return found
