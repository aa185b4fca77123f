"""What propagation learns about the dims of a network: equalities, ranges, divisibility, guards.

A rule of a node states what has to hold (`require_equal`, `assume_at_least`, `require_divides`). An
equation is solved for a symbol where possible (``total == past + seq`` replaces total everywhere);
one that only says which argument a min or max takes, or that a quotient is exact, becomes a rewrite
and the guard that makes it true; every other one is a guard, checked when the model is called.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field, replace

from tvmext.errors import DimError, ModelError

from ..dims import (
    Dim,
    Expr,
    Guard,
    as_symbol,
    at_least,
    bounds,
    floordiv,
    maximum,
    minimum,
    names_of,
    product,
    refine,
    substitute,
)
from ..expr import Atom, atoms, content, of_atom, rebuild, replace_atom, terms_of
from ..expr_atoms import cancel, inner_extreme, primitive
from .symbolic_rewrites import divides, inequality, quotients, use_divisors

UNKNOWN_PREFIX = "_u"
"""Names of sizes that only the run knows begin with this; names of dims never do."""

Size = int | Expr


def is_unknown(name: str) -> bool:
    """Whether the symbol stands for a size that only the run knows."""
    return name.startswith(UNKNOWN_PREFIX)


def symbol_of(name: str) -> Expr:
    """The symbol of a dim or of an unknown size."""
    return of_atom(Atom("symbol", (), name))


def has_unknown(size: Size) -> bool:
    """Whether the size depends on one that only the run knows."""
    return any(map(is_unknown, names_of(size)))


@dataclass
class Facts:
    """Knowledge about the dims; grows while a graph is propagated and is kept between passes."""

    ranges: dict[str, Dim]
    """The dims that are left, with their ranges."""
    rank: dict[str, int]
    """Of two equal dims the one of lower rank is kept."""
    bound: bool = False
    """Whether the user fixed or limited dims: a contradiction is then an error in them."""
    values: dict[str, Size] = field(default_factory=dict)
    """Dims that are expressions over others."""
    unknowns: dict[tuple[str, int], Expr] = field(default_factory=dict)
    """Value and axis of each size that only the run knows."""
    late: dict[tuple[Size, str, Size], str] = field(default_factory=dict)
    """What must hold for those sizes, and which node needs it."""
    _chosen: dict[Atom, Size] = field(default_factory=dict)
    """min and max atoms with the argument that guards make them equal to."""
    _divisors: dict[Size, set[int]] = field(default_factory=dict)
    """Expressions with the integers that guards make divide them."""
    _guards: dict[tuple[Size, str, Size], Guard] = field(default_factory=dict)
    _limits: dict[tuple[str, str], str] = field(default_factory=dict)
    """Where the model itself narrowed the range of a dim: (name, ">=" or "<=") to the node."""
    _suggestions: dict[tuple[Size, Size], str] = field(default_factory=dict)

    # ---- questions ----

    def simplify(self, size: Size) -> Size:
        """The size over the dims that are left, in the simplest form known."""
        if isinstance(size, int):
            return size
        size = refine(substitute(size, self.values), self.ranges)
        if not self._chosen and not self._divisors:
            return size
        for _ in range(4):
            before = size
            if isinstance(size, Expr) and self._chosen:
                size = rebuild(size, lambda atom: self._chosen.get(atom, of_atom(atom)))
            size = use_divisors(size, self._divisors)
            if size == before:
                break
        return size

    def at_least(self, a: Size, b: Size) -> bool | None:
        """Whether a >= b in every valid run: True, False (in none) or None."""
        return at_least(self.simplify(a - b), 0, self.ranges)

    def equal(self, a: Size, b: Size) -> bool | None:
        """Whether a == b in every valid run: True, False (in none) or None."""
        gap = self.simplify(a - b)
        low, high = bounds(gap, self.ranges)
        if low == high == 0:
            return True
        if (low is not None and low > 0) or (high is not None and high < 0):
            return False
        return None

    def minimum(self, a: Size, b: Size) -> Size:
        """The smaller size, simplified."""
        return self.simplify(minimum(a, b))

    def maximum(self, a: Size, b: Size) -> Size:
        """The larger size, simplified."""
        return self.simplify(maximum(a, b))

    def unknown(self, value: str, axis: int) -> Expr:
        """The size of an axis that only the run knows; the same one in every pass."""
        name = f"{UNKNOWN_PREFIX}{len(self.unknowns)}"
        return self.unknowns.setdefault((value, axis), symbol_of(name))

    @property
    def state(self) -> tuple:
        """What shapes depend on; equal states give equal shapes."""
        divisors = {size: frozenset(found) for size, found in self._divisors.items()}
        return dict(self.values), dict(self.ranges), dict(self._chosen), divisors

    @property
    def guards(self) -> tuple[Guard, ...]:
        """What has to be checked when the model is called, in terms of the dims that are left."""
        limits = []
        for (name, op), where in self._limits.items():
            dim = self.ranges[name]
            limit = dim.low if op == ">=" else dim.high
            limits.append(Guard(symbol_of(name), op, limit or 0, where))
        return (*limits, *self._guards.values())

    def late_guards(self) -> tuple[Guard, ...]:
        """What has to be checked while the model runs.

        As it was stated first: what was learned from a guard makes it look needless afterwards.
        """
        found = {}
        for (left, op, right), where in self.late.items():
            left, right = (substitute(size, self.values) for size in (left, right))
            holds = right % left == 0 if op == "divides" else left == right
            if not holds:
                found[left, op, right] = Guard(left, op, right, where)
        return tuple(found.values())

    # ---- statements; each raises DimError or ModelError if it can never hold ----

    def assume_at_least(self, a: Size, b: Size, where: str) -> None:
        """The model is valid only if a >= b."""
        gap = self.simplify(a - b)
        known = at_least(gap, 0, self.ranges)
        if known is False:
            raise self._contradiction(a, ">=", b, where)
        if known is None:
            for case in _cases(gap):
                self._guard(*inequality(case), where)

    def require_divides(self, n: Size, size: Size, where: str) -> None:
        """The model is valid only if n divides the size."""
        n, size = self.simplify(n), self.simplify(size)
        if n == 0 or size % n == 0:
            return
        if isinstance(size, int) and isinstance(n, int):
            raise self._contradiction(n, "divides", size, where)
        size, n = cancel(size, n)
        if isinstance(n, int) and isinstance(size, Expr):
            size = floordiv(size, content(size))  # which has no factor of n any more
            if divides(n, size, self._divisors):
                return
            self._divisors.setdefault(size, set()).add(n)
        self._guard(n, "divides", size, where)

    def require_equal(self, a: Size, b: Size, where: str) -> None:
        """The model is valid only if a == b."""
        a, b = self.simplify(a), self.simplify(b)
        known = self.equal(a, b)
        if known is False:
            raise self._contradiction(a, "==", b, where)
        if known or (a, "==", b) in self._guards or (b, "==", a) in self._guards:
            return
        gap = primitive(a - b)
        if not (self._choose(gap, where) or self._divide(gap, where) or self._solve(gap, where)):
            self._guard(a, "==", b, where)

    def suggest_equal(self, a: Size, b: Size, where: str) -> None:
        """a == b is the sensible reading of a broadcast, unless one of them turns out to be 1."""
        if not has_unknown(a) and not has_unknown(b):
            self._suggestions.setdefault((a, b), where)

    def use_suggestions(self) -> None:
        """Requires what was suggested and is still undecided."""
        suggested, self._suggestions = self._suggestions, {}
        for (a, b), where in suggested.items():
            a, b = self.simplify(a), self.simplify(b)
            if a != 1 and b != 1:
                self.require_equal(a, b, where)

    def restate(self, values: dict[str, Size] | None = None) -> None:
        """States every guard again, with dims replaced; those that now hold by themselves go."""
        old, self._guards = self._guards, {}
        for guard in old.values():
            left, right = (substitute(size, values or {}) for size in (guard.left, guard.right))
            match guard.op:
                case "==":
                    self.require_equal(left, right, guard.reason)
                case ">=":
                    self.assume_at_least(left, right, guard.reason)
                case "<=":
                    self.assume_at_least(right, left, guard.reason)
                case _:
                    self._divisors.get(guard.right, set()).discard(guard.left)
                    self.require_divides(left, right, guard.reason)

    # ---- solving gap == 0 ----

    def _choose(self, gap: Size, where: str) -> bool:
        """min(a, b) == a says a <= b; tried for each min and max, then for two at once."""
        extremes = [a for a in sorted(atoms(gap), key=str) if a.kind in ("min", "max")]
        for group in [*itertools.combinations(extremes, 1), *itertools.combinations(extremes, 2)]:
            for args in itertools.product(*(atom.args for atom in group)):
                chosen = gap
                for atom, arg in zip(group, args):
                    chosen = replace_atom(chosen, atom, arg)
                if self.simplify(chosen) == 0:
                    self._chosen |= zip(group, args)
                    for atom, arg in zip(group, args):
                        self._assume_chosen(atom, arg, where)
                    return True
        return False

    def _assume_chosen(self, atom: Atom, arg: Size, where: str) -> None:
        sign = 1 if atom.kind == "min" else -1
        for other in atom.args:
            self.assume_at_least(sign * other, sign * arg, where)

    def _divide(self, gap: Size, where: str) -> bool:
        """n * floordiv(a, n) == a says that n divides a; tried for each quotient, then for all."""
        found = quotients(gap)
        for group in [*([atom] for atom in found), found]:
            exact: dict[Size, set[int]] = {}
            for numerator, n in (atom.args for atom in group):
                if isinstance(n, int):
                    exact.setdefault(numerator, set()).add(n)
            if exact and self.simplify(use_divisors(gap, exact)) == 0:
                for numerator, divisors in exact.items():
                    for n in sorted(divisors):
                        self.require_divides(n, numerator, where)
                return True
        return False

    def _solve(self, gap: Size, where: str) -> bool:
        """Replaces a symbol that occurs once, with a coefficient that divides the rest."""
        candidates: dict[str, Size] = {}
        for monomial, coefficient in terms_of(gap):
            name = as_symbol(product(map(of_atom, monomial)))
            if name is None:
                continue
            rest = coefficient * symbol_of(name) - gap
            value = floordiv(rest, coefficient)
            # only dims may be replaced, by other dims: not by what the run alone knows
            dims = name in self.ranges and names_of(value) <= self.ranges.keys()
            exact = name not in names_of(rest) and value * coefficient == rest
            if exact and (dims or is_unknown(name)):
                candidates[name] = value
        if not candidates:
            return False
        name = max(candidates, key=lambda name: self._preference(name, candidates[name]))
        self._define(name, candidates[name], where)
        return True

    def _preference(self, name: str, value: Size) -> tuple[bool, bool, int]:
        """Which symbol to replace: an unknown one, one by a sum without minus, the later one."""
        plain = all(coefficient > 0 for _, coefficient in terms_of(value))
        return is_unknown(name), plain, self.rank.get(name, 0)

    def _define(self, name: str, value: Size, where: str) -> None:
        """Replaces a dim in everything that is known."""
        dim = self.ranges.pop(name, None)
        self.values = {key: substitute(v, {name: value}) for key, v in self.values.items()}
        self.values[name] = value
        # rewrites that mention the dim are learned again in the next pass
        self._chosen = {
            atom: arg for atom, arg in self._chosen.items() if name not in of_atom(atom).names
        }
        self._divisors = {
            size: found for size, found in self._divisors.items() if name not in names_of(size)
        }
        self.restate({name: value})
        if dim is not None:
            reason = f"{where}, where {name} is {value},"
            low = self._limits.pop((name, ">="), reason)
            high = self._limits.pop((name, "<="), reason)
            self.assume_at_least(value, dim.low, low)
            if dim.high is not None:
                self.assume_at_least(dim.high, value, high)

    # ---- guards ----

    def _guard(self, left: Size, op: str, right: Size, where: str) -> None:
        if has_unknown(left) or has_unknown(right):  # nothing can check it before the run
            self.late[left, op, right] = where
            return
        name = as_symbol(left)
        if name in self.ranges and isinstance(right, int) and op in (">=", "<="):
            self._limit(self.ranges[name], op, right, where)
        else:
            self._guards.setdefault((left, op, right), Guard(left, op, right, where))

    def _limit(self, dim: Dim, op: str, limit: int, where: str) -> None:
        """A guard on a bare dim narrows its range."""
        low = max(dim.low, limit) if op == ">=" else dim.low
        high = limit if op == "<=" and (dim.high is None or limit < dim.high) else dim.high
        opt = dim.opt
        if opt is not None:
            opt = max(low, opt if high is None else min(opt, high))
        self.ranges[dim.name] = replace(dim, low=low, high=high, opt=opt)
        self._limits[dim.name, op] = where

    def _contradiction(self, a: Size, op: str, b: Size, where: str) -> Exception:
        message = f"{where} needs {a} {op} {b}, which holds for no valid size"
        if self.bound:
            return DimError(message, hint="other sizes for the dims that were given")
        return ModelError(message, hint="check the shapes of the model's inputs")


def _cases(gap: Size) -> list[Size]:
    """Sizes that are all >= 0 where the gap is: min(a, b) >= c is a >= c and b >= c."""
    atom = inner_extreme("min", gap) or inner_extreme("max", -gap)
    if atom is None:
        return [gap]
    return [case for arg in atom.args for case in _cases(replace_atom(gap, atom, arg))]
