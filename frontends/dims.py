"""Named dims, their ranges, the conditions a model puts on them, and the user's `dims` argument."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from tvmext.errors import DimError

from .bounds import at_least, bounds, refine
from .expr import (
    Expr,
    as_symbol,
    evaluate,
    names_of,
    product,
    substitute,
    symbol,
)
from .expr_atoms import ceildiv, floordiv, maximum, minimum
from .expr_parse import parse

__all__ = [
    "USUAL",
    "Dim",
    "DimSpec",
    "Expr",
    "Guard",
    "as_symbol",
    "at_least",
    "bind_dims",
    "bounds",
    "ceildiv",
    "evaluate",
    "floordiv",
    "maximum",
    "minimum",
    "names_of",
    "parse",
    "product",
    "refine",
    "substitute",
    "symbol",
    "usual_sizes",
]

DimSpec = int | tuple[int, int | None] | tuple[int, int, int | None]
"""What a user says about one dim: its size, (min, max) or (min, opt, max); max None is no limit."""

OPERATORS = ("==", "<=", ">=", "divides")


USUAL = 64
"""The size of a dim of which nothing is known; a multiple of what networks ask of theirs."""


@dataclass(frozen=True)
class Dim:
    """A dynamic dim: low <= size <= high; `high` None means no limit.

    `opt` is the size to be fastest at, if the user named one. `label` is the model's own name where
    that is not an identifier.
    """

    name: str
    low: int = 0
    high: int | None = None
    opt: int | None = None
    label: str = ""

    def __post_init__(self) -> None:
        ordered = [n for n in (0, self.low, self.opt, self.high) if n is not None]
        if ordered != sorted(ordered):
            raise DimError(
                f"dim '{self.title}' has the range {self.range}", hint="0 <= min <= opt <= max"
            )

    @property
    def title(self) -> str:
        """The name that the user knows."""
        return self.label or self.name

    @property
    def range(self) -> str:
        """min:max or min:opt:max, as the command line writes it."""
        parts = [self.low, self.opt, self.high] if self.opt is not None else [self.low, self.high]
        return ":".join("" if part is None else str(part) for part in parts)

    def check(self, value: int, where: str) -> None:
        """Raises DimError if `value` is outside the range; `where` names the input and axis."""
        if value < self.low or (self.high is not None and value > self.high):
            raise DimError(
                f"{where}: dim '{self.title}' is {value}, outside its range {self.range}",
                hint="a size in that range; what compile was told of this dim can be told wider",
            )


@dataclass(frozen=True)
class Guard:
    """A condition on the dims without which the compiled model would be wrong.

    `op` is one of ``==  <=  >=  divides``; "divides" means right % left == 0. `reason` says which
    node needs it.
    """

    left: int | Expr
    op: str
    right: int | Expr
    reason: str = ""

    def __post_init__(self) -> None:
        if self.op not in OPERATORS:
            raise DimError(f"'{self.op}' is not a relation", hint=", ".join(OPERATORS))

    @property
    def names(self) -> frozenset[str]:
        return names_of(self.left) | names_of(self.right)

    def holds(self, values: Mapping[str, int]) -> bool:
        """Whether the sizes satisfy the condition; one that divides by zero does not hold.

        Raises DimError if a size is missing.
        """
        try:
            left, right = evaluate(self.left, values), evaluate(self.right, values)
        except DimError:
            if self.names <= values.keys():
                return False
            raise
        match self.op:
            case "==":
                return left == right
            case "<=":
                return left <= right
            case ">=":
                return left >= right
            case _:
                return right % left == 0 if left else right == 0

    def substitute(self, values: Mapping[str, int | Expr]) -> Guard:
        return replace(
            self, left=substitute(self.left, values), right=substitute(self.right, values)
        )

    def to_json(self) -> dict[str, str]:
        """Plain strings; `from_json` reads them back."""
        return {
            "left": str(self.left),
            "op": self.op,
            "right": str(self.right),
            "reason": self.reason,
        }

    @classmethod
    def from_json(cls, fields: Mapping[str, str]) -> Guard:
        return cls(parse(fields["left"]), fields["op"], parse(fields["right"]), fields["reason"])

    def __str__(self) -> str:
        return f"{self.left} {self.op} {self.right}"


def bind_dims(
    dims: Mapping[str, DimSpec] | None, known: Mapping[str, Dim]
) -> tuple[dict[str, int], dict[str, Dim]]:
    """Splits the user's `dims` into sizes that are fixed and the dims that stay free.

    `known` are the model's dims by name; a dim may also be called by its label. Returns
    ({name: size}, {name: Dim with the user's range}); the second holds every dim not in the first.
    Raises DimError for an unknown dim, a size outside the dim's own range, or a bad range.
    """
    by_title = {dim.title: name for name, dim in known.items()} | {name: name for name in known}
    sizes: dict[str, int] = {}
    free = dict(known)
    for title, spec in (dims or {}).items():
        if title not in by_title:
            names = ", ".join(dim.title for dim in known.values()) or "none: every size is fixed"
            raise DimError(f"the model has no dim '{title}'", hint=f"its dims are {names}")
        name = by_title[title]
        if isinstance(spec, int) and not isinstance(spec, bool):
            if spec < 0:
                raise DimError(f"dim '{title}' is given as {spec}", hint="a size from 0 up")
            known[name].check(spec, "dims")
            sizes[name] = spec
            free.pop(name, None)
        else:
            free[name] = _ranged(known[name], spec)
    return sizes, free


def _ranged(dim: Dim, spec: object) -> Dim:
    """The dim with the user's (min, max) or (min, opt, max), inside the dim's own range."""
    match spec:
        case (int(low), (int() | None) as high):
            opt = None
        case (int(low), int(opt), (int() | None) as high):
            pass
        case _:
            raise DimError(
                f"dim '{dim.title}' is given as {spec!r}",
                hint="a size, (min, max) or (min, opt, max)",
            )
    dim.check(low, "dims")
    if high is None or (dim.high is not None and high > dim.high):
        high = dim.high
    return Dim(dim.name, low, high, opt, dim.label)


def usual_sizes(dims: Mapping[str, Dim]) -> dict[str, int]:
    """A size for each free dim: the usual one if the user named one, else one within its range."""
    found = {}
    for name, dim in dims.items():
        high = USUAL if dim.high is None else min(USUAL, dim.high)
        found[name] = dim.opt if dim.opt is not None else max(dim.low, high)
    return found
