"""Predicted prices of kernels as tables: what is taken, the next best, and what runs where."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from . import console

if TYPE_CHECKING:
    from tvmext.schedules.prices import Candidate, KernelPrices

MOST_SPANS = 6
"""Spans of sizes of one variant that are shown."""


def print_prices(prices: Sequence[KernelPrices]) -> None:
    """Print a line for each kernel, one for each runner-up, and what runs at which size."""
    records = any(one.why for one in prices)
    columns = ("kernel", "rule", "calls", "us", "decision", *(["records"] if records else []))
    rows: list[tuple[object, ...]] = []
    for one in prices:
        last = (one.why,) if records else ()
        text = brief(one.pick.decision)
        rows.append((one.kernel, one.rule, one.calls, _time(one.pick), text, *last))
        for other in one.others:
            text = brief(other.decision, one.pick.decision)
            rows.append(("", "", "", _time(other), f"or {text}", *([""] * len(last))))
    title = "predicted microseconds of a call, on one core"
    console.print_table(title, columns, rows, numeric=columns[2:4])
    if spans := list(_spans(prices)):
        click.echo()
        columns = ("kernel", "runs", "at", "sizes up to 512")
        console.print_table("variants of kernels", columns, spans)


def _time(one: Candidate) -> str:
    return "-" if one.seconds is None else f"{one.seconds * 1e6:.4g}"


def brief(decision: Any, beside: Any = None) -> str:
    """A decision in a line: what it does, or, beside another one, what it does differently."""
    flat = dict(_flat("", decision))
    if beside is None:
        parts = [f"{n} {v}" for n, v in flat.items() if v is True or v not in _NOTHING]
    else:
        known = dict(_flat("", beside))
        names = dict.fromkeys([*flat, *known])
        parts = [f"{n} {flat.get(n, 0)}" for n in names if flat.get(n, 0) != known.get(n, 0)]
    return ", ".join(parts) or "-"


_NOTHING = (None, False, 0, "", "none", -1, 1)
_VARIANTS = ("others", "heights")
_TILE = ("rows", "vectors", "lanes")


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


def _spans(prices: Sequence[KernelPrices]) -> Iterator[tuple[str, str, str, str]]:
    for one in prices:
        for place, variant in enumerate(one.chosen):
            spans = [f"{low}" if low == high else f"{low}-{high}" for low, high in variant.spans]
            more = f" and {len(spans) - MOST_SPANS} more" if len(spans) > MOST_SPANS else ""
            where = ", ".join(spans[:MOST_SPANS]) + more or "none"
            yield one.kernel if place == 0 else "", variant.variant, variant.size, where
