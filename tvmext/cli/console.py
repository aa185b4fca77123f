"""Results on stdout: tables for people, JSON for programs."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from tvmext.artifact import ArtifactMetadata
    from tvmext.frontends.model import TensorSpec

PIPE_WIDTH = 100_000
"""Columns of a table that no terminal shows: nothing is cut or wrapped."""


def print_json(result: Any) -> None:
    """Print `result` as JSON. Numbers that JSON has no word for (NaN, infinities) become null."""
    click.echo(json.dumps(plain(result), indent=2, allow_nan=False))


def print_table(
    title: str,
    columns: Sequence[str],
    rows: Iterable[Sequence[object]],
    *,
    numeric: Sequence[str] = (),
) -> None:
    """Print a table; the `numeric` columns are aligned to the right.

    On a terminal it fits the terminal and is coloured (not under NO_COLOR); elsewhere it is plain
    and as wide as it has to be.
    """
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold", title_justify="left")
    for column in columns:
        right = column in numeric
        table.add_column(column, justify="right" if right else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(str(cell)) for cell in row))
    console = Console(width=None if sys.stdout.isatty() else PIPE_WIDTH, highlight=False)
    with console.capture() as captured:
        if title:
            console.print(Text(title, style="bold"))
        console.print(table)
    click.echo("\n".join(line.rstrip() for line in captured.get().splitlines()))


def print_facts(facts: Mapping[str, object]) -> None:
    """Print ``name  value`` lines, the values aligned."""
    width = max(map(len, facts), default=0)
    for name, value in facts.items():
        click.echo(f"{name:<{width}}  {value}".rstrip())


def size_text(count: int) -> str:
    """A number of bytes for people: ``1.5 MB`` (decimal units)."""
    value, units = float(count), ("B", "kB", "MB", "GB", "TB")
    step = min(int(math.log10(max(value, 1)) // 3), len(units) - 1)
    return f"{value / 1000**step:.{1 if step else 0}f} {units[step]}"


def number_text(value: float | None) -> str:
    """A number for people, four significant digits; a dash for none."""
    return "-" if value is None else f"{value:.4g}"


def print_signature(inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]) -> None:
    """Print the inputs and outputs of a model or a library as one table."""
    rows = [
        (kind, spec.name, spec.dtype, shape_text(spec.shape))
        for kind, specs in (("input", inputs), ("output", outputs))
        for spec in specs
    ]
    print_table("", ("", "name", "dtype", "shape"), rows)


def spec_json(spec: TensorSpec) -> dict[str, Any]:
    """An input or output as JSON has it: sizes are numbers, expressions are text."""
    shape = [dim if isinstance(dim, int) else str(dim) for dim in spec.shape]
    return {"name": spec.name, "dtype": spec.dtype, "shape": shape}


def described(metadata: ArtifactMetadata) -> dict[str, Any]:
    """The metadata of a library as JSON has them."""
    found: dict[str, Any] = json.loads(metadata.to_json())
    return found


def shape_text(shape: Iterable[object]) -> str:
    """A shape for people: ``[batch, 3, 224, 224]``."""
    return f"[{', '.join(map(str, shape))}]"


def plain(value: Any) -> Any:
    """What JSON can say of a value: data classes become objects, arrays lists."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, str | int | None):
        return value
    if is_dataclass(value) and not isinstance(value, type):
        return plain(asdict(value))
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Iterable):
        return [plain(item) for item in value]
    return plain(value.item()) if hasattr(value, "item") else str(value)
