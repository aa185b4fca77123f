"""Predicted prices of kernels as tables: what is taken, the next best, and what runs where."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import click

from tvmext.schedules.brief import brief, spans_text

from . import console

if TYPE_CHECKING:
    from tvmext.schedules.prices import Candidate, KernelPrices


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


def _spans(prices: Sequence[KernelPrices]) -> Iterator[tuple[str, str, str, str]]:
    for one in prices:
        for place, variant in enumerate(one.chosen):
            first = one.kernel if place == 0 else ""
            yield first, variant.variant, variant.size, spans_text(variant.spans)
