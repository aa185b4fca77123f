"""Decisions in the words of a line, for people."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

MOST_SPANS = 6
"""Spans of sizes of one variant that are shown."""

_NOTHING = (None, False, 0, "", "none", -1, 1)
_VARIANTS = ("others", "heights")
_TILE = ("rows", "vectors", "lanes")


def brief(decision: Any, beside: Any = None) -> str:
    """A decision as JSON has it: what it does, or, beside another one, what it does differently."""
    flat = dict(_flat("", decision))
    if beside is None:
        parts = [f"{n} {v}" for n, v in flat.items() if v is True or v not in _NOTHING]
    else:
        known = dict(_flat("", beside))
        names = dict.fromkeys([*flat, *known])
        parts = [f"{n} {flat.get(n, 0)}" for n in names if flat.get(n, 0) != known.get(n, 0)]
    return ", ".join(parts) or "-"


def spans_text(spans: Sequence[tuple[int, int]]) -> str:
    """``1-16, 24``: the first few of the spans of sizes at which a variant runs."""
    texts = [f"{low}" if low == high else f"{low}-{high}" for low, high in spans]
    more = f" and {len(texts) - MOST_SPANS} more" if len(texts) > MOST_SPANS else ""
    return ", ".join(texts[:MOST_SPANS]) + more or "none"


def _flat(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    """(name, plain value) of all fields; a tile is "rows x vectors x lanes"."""
    if isinstance(value, Mapping) and tuple(value) == _TILE:
        yield name, "x".join(str(value[part]) for part in _TILE)
    elif isinstance(value, Mapping):
        for key, item in value.items():
            if key not in _VARIANTS:
                yield from _flat(f"{name}.{key}".lstrip("."), item)
    elif isinstance(value, list | tuple):
        for place, item in enumerate(value):
            yield from _flat(f"{name}[{place}]", item)
    else:
        yield name, value
