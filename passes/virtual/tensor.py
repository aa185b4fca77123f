"""Virtual tensors: a tensor as a map from its indices to elements of physical tensors.

    V[x] = home_p[index_p(x - origin_p)]       p: the first piece whose box and guards contain x

A piece whose home is a `Fill` gives padding. Every index is in some piece. Movement operators are
two primitives: `VirtualTensor.remap` (every output element is at a given index of the operand) and
`assemble` (tensors placed side by side or over one another); both compose with what the operand
already is, so a chain of operators is one map. After VTC (arXiv 2604.09558, section 4), with pieces
instead of its index-dependent bias.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from tvmext.frontends.dims import minimum, substitute

from .piece import (
    Fill,
    Guard,
    Home,
    Lookup,
    Piece,
    local,
    renamed,
    scope_of,
    used_lookups,
)
from .restrict import restrict
from .scope import Scope, Size
from .tidy import tidy

MOST_BOXES = 4
"""Boxes of a tensor that others read through its map: cuts along several axes multiply, and with
them the time to compile and the conditions at run time."""


@dataclass(frozen=True)
class VirtualTensor:
    """A shape and the ordered pieces that say where its elements are; see the module."""

    shape: tuple[Size, ...]
    pieces: tuple[Piece, ...]

    @property
    def rank(self) -> int:
        return len(self.shape)

    @property
    def homes(self) -> tuple[Home, ...]:
        """The physical tensors it reads, those of indices included, each once."""
        found: dict[Home, None] = {}
        for piece in self.pieces:
            found |= {lookup.home: None for lookup in piece.lookups}
            if isinstance(piece.home, Home):
                found[piece.home] = None
        return tuple(found)

    @property
    def boxes(self) -> int:
        """Pieces for each part of the axis that is cut most: 1 for a concat, 3 for a framed image.

        A part is where one or more pieces begin.
        """
        parts = [len({piece.origin[axis] for piece in self.pieces}) for axis in range(self.rank)]
        return -(-len(self.pieces) // max(parts, default=1)) if self.pieces else 1

    @property
    def only(self) -> Piece | None:
        """The piece, if there is one piece, without guards and not a fill."""
        piece = self.pieces[0] if len(self.pieces) == 1 else None
        return piece if piece and not piece.guards and isinstance(piece.home, Home) else None

    def remap(
        self, shape: Sequence[Size], index: Sequence[Size], lookups: Sequence[Lookup] = ()
    ) -> VirtualTensor:
        """out[x] = self[index(x)], `index` being expressions over ``local(axis)`` of the output.

        Every index must be within this tensor for every x in `shape`; `lookups` are those that
        `index` mentions, in order of dependence.
        """
        return layered(shape, self.read(shape, index, lookups))

    def read(
        self,
        shape: Sequence[Size],
        index: Sequence[Size],
        lookups: Sequence[Lookup] = (),
        guards: Sequence[Guard] = (),
    ) -> list[Piece]:
        """The pieces of `remap` where the guards hold; only there must the indices be valid."""
        shape = tuple(shape)
        whole = Piece(
            (0,) * len(shape), shape, Fill(0), tuple(index), tuple(guards), tuple(lookups)
        )
        pieces = (_through(whole, self, piece) for piece in self.pieces)
        return [piece for piece in pieces if piece]


def physical(name: str, shape: Sequence[Size]) -> VirtualTensor:
    """A tensor that is its own home."""
    home = Home(name, tuple(shape))
    index = tuple(0 if n == 1 else local(axis) for axis, n in enumerate(home.shape))
    piece = Piece((0,) * len(home.shape), home.shape, home, index)
    return VirtualTensor(home.shape, (piece,))


def layered(shape: Sequence[Size], pieces: Iterable[Piece]) -> VirtualTensor:
    """Pieces over one another, the first on top; together they must cover the shape."""
    shape = tuple(shape)
    return VirtualTensor(shape, tidy(shape, pieces))


def filled(shape: Sequence[Size], value: float | int | bool) -> VirtualTensor:
    """A tensor of one value."""
    shape = tuple(shape)
    return VirtualTensor(shape, (Piece((0,) * len(shape), shape, Fill(value), ()),))


def assemble(
    shape: Sequence[Size], parts: Iterable[tuple[Sequence[Size], VirtualTensor]]
) -> VirtualTensor:
    """Tensors placed at offsets in `shape`; where they overlap, the first one shows.

    Together they must cover the shape, and none may reach out of it.
    """
    shape = tuple(shape)
    scope = scope_of(shape)
    pieces = [
        _placed(_bounded(piece, tensor.shape, scope), offset)
        for offset, tensor in parts
        for piece in tensor.pieces
    ]
    return VirtualTensor(shape, tidy(shape, pieces))


def compose(tensor: VirtualTensor, homes: dict[str, VirtualTensor]) -> VirtualTensor:
    """The tensor read through what its homes are: those named in `homes` are virtual themselves.

    A home that an index is looked up in can only be replaced by another home that it views as a
    whole.
    """
    pieces: list[Piece] = []
    scope = scope_of(tensor.shape)
    for piece in tensor.pieces:
        piece = _redirect_lookups(piece, homes)
        base = homes.get(piece.home.name) if isinstance(piece.home, Home) else None
        if base is None:
            pieces.append(piece)
            continue
        through = (_through(piece, base, inner) for inner in base.pieces)
        pieces += [_bounded(new, piece.extent, scope) for new in through if new]
    return VirtualTensor(tensor.shape, tidy(tensor.shape, pieces))


def _placed(piece: Piece, offset: Sequence[Size]) -> Piece:
    return replace(piece, origin=tuple(o + d for o, d in zip(piece.origin, offset, strict=True)))


def _bounded(piece: Piece, region: tuple[Size, ...], scope: Scope) -> Piece:
    """The piece, empty whenever the region it was made for is empty.

    Its box was worked out for a region that has elements, and means nothing for one that has none.
    """
    if piece.extent == region:
        return piece
    extent = tuple(
        e if e == size or scope.proves(size - 1) else minimum(e, size)
        for e, size in zip(piece.extent, region, strict=True)
    )
    return piece if extent == piece.extent else replace(piece, extent=extent)


def _redirect_lookups(piece: Piece, homes: dict[str, VirtualTensor]) -> Piece:
    """The piece with its indices looked up in the homes of virtual index tensors."""
    values: dict[str, Size] = {}
    lookups: list[Lookup] = []
    for lookup in piece.lookups:
        current = lookup.substitute(values)
        base = homes.get(lookup.home.name)
        source = base.only if base else None
        if source and isinstance(source.home, Home) and not source.lookups:
            into = {f"_x{axis}": i for axis, i in enumerate(current.index)}
            index = tuple(substitute(i, into) for i in source.index)
            current = replace(current, home=source.home, index=index)
        if current is not lookup:
            values[lookup.name] = current.symbol
        lookups.append(current)
    if not values:
        return piece
    return replace(
        piece,
        index=tuple(substitute(i, values) for i in piece.index),
        guards=tuple(replace(g, value=substitute(g.value, values)) for g in piece.guards),
        lookups=tuple(lookups),
    )


def _through(outer: Piece, tensor: VirtualTensor, inner: Piece) -> Piece | None:
    """The part of `outer`, whose index is one of `tensor`, that is in `tensor`'s piece `inner`."""
    found = _composed(replace(outer, home=ANY), tensor.shape, replace(inner, home=ANY))
    return found and replace(found, home=inner.home)


ANY = Fill(0)
"""A home that does not matter."""


@lru_cache(maxsize=4096)  # layers of a network are alike but for what they are called
def _composed(outer: Piece, shape: tuple[Size, ...], inner: Piece) -> Piece | None:
    """`_through`, wherever the elements are."""
    scope = scope_of(outer.extent, outer.lookups)
    into = {
        f"_x{axis}": scope.simplify(i - origin)
        for axis, (i, origin) in enumerate(zip(outer.index, inner.origin, strict=True))
    }
    lookups = renamed(inner.lookups, into)
    values = {**into, **{name: sym for name, (_, sym) in lookups.items()}}
    every = outer.lookups + tuple(lookup for lookup, _ in lookups.values())
    scope = scope_of(outer.extent, every)
    conditions = [
        *outer.guards,
        *_inside(shape, inner, into),
        *(Guard(substitute(g.value, values), g.low, g.high) for g in inner.guards),
    ]
    box = restrict(outer.extent, conditions, scope)
    if box is None:
        return None
    moved = {f"_x{axis}": local(axis) + low for axis, low in enumerate(box.low) if low != 0}
    origin = tuple(o + low for o, low in zip(outer.origin, box.low, strict=True))
    shifted = renamed(every, moved)
    moved |= {name: sym for name, (_, sym) in shifted.items()}
    return _settled(
        Piece(
            origin,
            box.extent,
            inner.home,
            tuple(substitute(substitute(i, values), moved) for i in inner.index),
            tuple(replace(g, value=substitute(g.value, moved)) for g in box.guards),
            tuple(lookup for lookup, _ in shifted.values()),
        )
    )


def _inside(shape: Sequence[Size], inner: Piece, into: dict[str, Size]) -> Iterable[Guard]:
    """That local coordinates are in the box, except along axes that the box spans."""
    for axis, (origin, extent) in enumerate(zip(inner.origin, inner.extent, strict=True)):
        if origin != 0 or extent != shape[axis]:
            yield Guard(into[f"_x{axis}"], 0, extent)


def _settled(piece: Piece) -> Piece | None:
    """The piece simplified within its box; None if it has no element."""
    scope = piece.scope
    guards = []
    for guard in piece.guards:
        value = scope.simplify(guard.value)
        low, high = guard.low, guard.high
        if scope.proves(low - value - 1) or scope.proves(value - high):
            return None
        if not (scope.proves(value - low) and scope.proves(high - 1 - value)):
            guards.append(Guard(value, low, high))
    index = tuple(scope.simplify(i) for i in piece.index)
    values = [*index, *(guard.value for guard in guards)]
    lookups, index, kept_guards = _simplified_lookups(piece, scope, values, index, guards)
    settled = replace(piece, index=index, guards=kept_guards, lookups=lookups)
    return None if settled.empty else settled


def _simplified_lookups(
    piece: Piece,
    scope: Scope,
    values: list[Size],
    index: tuple[Size, ...],
    guards: list[Guard],
) -> tuple[tuple[Lookup, ...], tuple[Size, ...], tuple[Guard, ...]]:
    """Lookups still used, with simple indices, and the expressions that name them."""
    renames: dict[str, Size] = {}
    kept: list[Lookup] = []
    for lookup in used_lookups(piece.lookups, values):
        simple = tuple(scope.simplify(substitute(i, renames)) for i in lookup.index)
        new = replace(lookup, index=simple)
        renames[lookup.name] = new.symbol
        kept.append(new)
    return (
        tuple(kept),
        tuple(substitute(i, renames) for i in index),
        tuple(replace(guard, value=substitute(guard.value, renames)) for guard in guards),
    )
