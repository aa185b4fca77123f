"""The parts of a virtual tensor: where a box of its elements lives and how it is reached."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache, lru_cache

from tvmext.frontends.dims import Expr, names_of, substitute, symbol

from .scope import Scope, Size


@dataclass(frozen=True)
class Home:
    """A physical tensor: row-major, its own memory. `name` is unique in its graph."""

    name: str
    shape: tuple[Size, ...]


@dataclass(frozen=True)
class Fill:
    """A home of one value, the same at every index."""

    value: float | int | bool
    shape: tuple[Size, ...] = ()


@dataclass(frozen=True)
class Lookup:
    """An index that is read from a tensor: ``home[index]``, an integer in [0, extent).

    `mode` says what the reader makes of other values (passes/indexing.py). In index expressions it
    stands as a variable, `symbol`, whose name follows from its contents.
    """

    home: Home
    index: tuple[Size, ...]
    extent: Size
    mode: str = "fast"

    @property
    def name(self) -> str:
        return _lookup_name(self)

    @property
    def symbol(self) -> Expr:
        return symbol(self.name)

    def substitute(self, values: Mapping[str, Size]) -> Lookup:
        index = tuple(substitute(i, values) for i in self.index)
        return self if index == self.index else Lookup(self.home, index, self.extent, self.mode)


@lru_cache(maxsize=4096)
def _lookup_name(lookup: Lookup) -> str:
    text = f"{lookup.home} {lookup.index} {lookup.extent} {lookup.mode}"
    return "_t" + hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


@dataclass(frozen=True)
class Guard:
    """The condition ``low <= value < high``."""

    value: Size
    low: Size
    high: Size


@dataclass(frozen=True)
class Piece:
    """The elements of a virtual tensor in one box that satisfy the guards, and their home.

    The box is [origin, origin + extent) along each axis. Index expressions and guards are over
    *local* coordinates, ``local(k)`` being the index along axis k minus ``origin[k]``, so that they
    look the same wherever the box is placed. Element x of the tensor is
    ``home[index[0](x - origin), ...]``.
    """

    origin: tuple[Size, ...]
    extent: tuple[Size, ...]
    home: Home | Fill
    index: tuple[Size, ...]
    guards: tuple[Guard, ...] = ()
    lookups: tuple[Lookup, ...] = field(default=())

    @property
    def scope(self) -> Scope:
        """Where an element of this piece exists."""
        return scope_of(self.extent, self.lookups)

    @property
    def steps(self) -> tuple[Guard | Lookup, ...]:
        """Guards and lookups in an order of evaluation: a lookup after every guard without it.

        Whoever evaluates them must stop at the first guard that fails, because the index of a
        lookup is only valid where the guards before it hold.
        """
        ready: set[str] = set()
        steps: list[Guard | Lookup] = []
        waiting = list(self.guards)
        for lookup in (*self.lookups, None):
            unknown = {other.name for other in self.lookups} - ready
            now = [guard for guard in waiting if names_of(guard.value).isdisjoint(unknown)]
            waiting = [guard for guard in waiting if guard not in now]
            steps += now
            if lookup:
                steps.append(lookup)
                ready.add(lookup.name)
        return tuple(steps)

    @property
    def empty(self) -> bool:
        """Whether it holds no element, as far as can be proved."""
        return any(isinstance(e, int) and e <= 0 for e in self.extent)


@cache
def local(axis: int) -> Expr:
    """The index variable of an axis."""
    return symbol(f"_x{axis}")


def locals_of(rank: int) -> tuple[Expr, ...]:
    """The index variables of a tensor of this rank."""
    return tuple(local(axis) for axis in range(rank))


@lru_cache(maxsize=8192)
def scope_of(extent: tuple[Size, ...], lookups: tuple[Lookup, ...] = ()) -> Scope:
    """The index variables within a box, and those that are looked up."""
    extents = {f"_x{axis}": size for axis, size in enumerate(extent)}
    return Scope(extents | {lookup.name: lookup.extent for lookup in lookups})


def renamed(
    lookups: Iterable[Lookup], values: Mapping[str, Size]
) -> dict[str, tuple[Lookup, Expr]]:
    """What becomes of lookups whose indices are substituted: {old name: (new lookup, symbol)}.

    A lookup may be in the index of a later one, so `lookups` are in order of dependence.
    """
    found: dict[str, tuple[Lookup, Expr]] = {}
    for lookup in lookups:
        inner = {name: sym for name, (_, sym) in found.items()}
        new = lookup.substitute({**values, **inner})
        found[lookup.name] = (new, new.symbol)
    return found


def used_lookups(lookups: Iterable[Lookup], values: Iterable[Size]) -> tuple[Lookup, ...]:
    """The lookups that the values mention, directly or through one another, each once."""
    wanted = {name for value in values for name in names_of(value)}
    kept: dict[str, Lookup] = {}
    for lookup in reversed(list(lookups)):
        if lookup.name in wanted:
            kept.setdefault(lookup.name, lookup)
            wanted |= {name for i in lookup.index for name in names_of(i)}
    return tuple(reversed(kept.values()))
