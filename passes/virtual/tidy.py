"""Fewer pieces for the same tensor: empty, hidden and adjoining ones."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from tvmext.frontends.dims import substitute

from .piece import Piece, local, scope_of
from .scope import Scope, Size


def tidy(shape: Sequence[Size], pieces: Iterable[Piece]) -> tuple[Piece, ...]:
    """The pieces without those that hold no element or that earlier ones hide; neighbours merged.

    The first match counts, so a piece after one that covers everything is never reached.
    """
    scope = scope_of(tuple(shape))
    kept: list[Piece] = []
    for piece in pieces:
        if piece.empty or any(_covers(earlier, piece, scope) for earlier in kept):
            continue
        kept.append(piece)
        while len(kept) > 1 and (merged := _merged(kept[-2], kept[-1], scope)):
            kept[-2:] = [merged]
        if not kept[-1].guards and _spans(kept[-1], shape):
            break
    return tuple(kept)


def _spans(piece: Piece, shape: Sequence[Size]) -> bool:
    return all(o == 0 for o in piece.origin) and piece.extent == tuple(shape)


def _covers(earlier: Piece, piece: Piece, scope: Scope) -> bool:
    """Whether the box of `piece` provably lies in that of `earlier`."""
    if earlier.guards:
        return False
    return all(
        _at_least(scope, o - eo) and _at_least(scope, eo + ee - o - e)
        for eo, ee, o, e in zip(
            earlier.origin, earlier.extent, piece.origin, piece.extent, strict=True
        )
    )


def _at_least(scope: Scope, value: Size) -> bool:
    return value >= 0 if isinstance(value, int) else scope.proves(value)


def _merged(first: Piece, second: Piece, scope: Scope) -> Piece | None:
    """The two as one piece, if they adjoin along one axis and the second continues the first.

    An extent that might be negative would take elements away from the other.
    """
    if first.home != second.home or first.guards or second.guards:
        return None
    if first.lookups or second.lookups:
        return None
    differ = [
        axis
        for axis in range(len(first.origin))
        if (first.origin[axis], first.extent[axis]) != (second.origin[axis], second.extent[axis])
    ]
    if len(differ) != 1:
        return None
    axis = differ[0]
    if first.origin[axis] + first.extent[axis] != second.origin[axis]:
        return None
    if not (_at_least(scope, first.extent[axis]) and _at_least(scope, second.extent[axis])):
        return None
    return _continued(first, second, axis)


def _continued(first: Piece, second: Piece, axis: int) -> Piece | None:
    """Both as one piece: the map of one of them must be that of the other in its box."""
    length = first.extent[axis]
    extent = tuple(e + second.extent[k] if k == axis else e for k, e in enumerate(first.extent))
    ahead, back = {f"_x{axis}": local(axis) + length}, {f"_x{axis}": local(axis) - length}
    if _same(second, first.index, ahead):
        return replace(first, extent=extent)
    if _same(first, second.index, back):
        index = tuple(substitute(i, back) for i in second.index)
        return replace(first, extent=extent, index=index)
    return None


def _same(piece: Piece, index: tuple[Size, ...], moved: dict[str, Size]) -> bool:
    """Whether `index`, moved, is the piece's own wherever the piece has elements."""
    pairs = zip(piece.index, index, strict=True)
    return all(mine == piece.scope.simplify(substitute(other, moved)) for mine, other in pairs)
