"""The calls of a profile by kernel, and how their figures are written."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from .profile import Row


@dataclass(frozen=True)
class Group:
    """All calls of one kernel. Work is None where a part of it is not known."""

    name: str
    rule: str
    calls: tuple[Row, ...]

    @property
    def seconds(self) -> float:
        return sum(row.kernel.seconds for row in self.calls)

    @property
    def flops(self) -> int | None:
        return total(row.flops for row in self.calls)

    @property
    def bytes(self) -> int | None:
        return total(row.bytes for row in self.calls)

    @property
    def predicted(self) -> float | None:
        """Seconds of all calls, as the cost model has them."""
        found = [row.predicted for row in self.calls if row.predicted is not None]
        return sum(found) if len(found) == len(self.calls) else None

    @property
    def nodes(self) -> list[str]:
        """The nodes of the model that they compute, each once."""
        return list(dict.fromkeys(node for row in self.calls for node in row.nodes))

    @property
    def roofline(self) -> float | None:
        """The share of the roofline, of all calls together."""
        if any(row.roofline is None for row in self.calls) or not self.seconds:
            return None
        return sum((row.roofline or 0) * row.kernel.seconds for row in self.calls) / self.seconds


def groups(rows: Iterable[Row]) -> list[Group]:
    """The calls by kernel, those that take the longest first."""
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(row.kernel.name, []).append(row)
    made = [Group(name, calls[0].rule, tuple(calls)) for name, calls in found.items()]
    return sorted(made, key=lambda group: -group.seconds)


def total(values: Iterable[int | None]) -> int | None:
    """The sum, None if a part of it is not known."""
    found = list(values)
    return None if None in found else sum(value for value in found if value is not None)


def time_text(seconds: float) -> str:
    """``1.23 ms``."""
    for unit, scale in (("s", 1.0), ("ms", 1e-3)):
        if seconds >= scale:
            return f"{seconds / scale:.3g} {unit}"
    return f"{seconds * 1e6:.3g} \u00b5s"


def rate_text(work: int | None, seconds: float, unit: float) -> str:
    """Work per second in a unit; empty where either is not known."""
    return "" if not work or not seconds else f"{work / seconds / unit:.1f}"


def share_text(share: float | None) -> str:
    """``62%``; empty if it is not known."""
    return "" if share is None else f"{share:.0%}"
