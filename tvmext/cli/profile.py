"""The profile of ``tvmext run``: its options, its table and its files."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from . import arrays, console
from .compile import check_output
from .progress import resting

if TYPE_CHECKING:
    from tvmext.measure.profile import ModelProfile
    from tvmext.runtime import CompiledModel

KERNELS_SHOWN = 15
NODES_SHOWN = 2


@dataclass(frozen=True)
class Wanted:
    """What the command line asks for."""

    table: bool
    html: Path | None
    trace: Path | None

    def __bool__(self) -> bool:
        return self.table or self.html is not None or self.trace is not None

    def check(self) -> None:
        """Raises OptionError for a file that could not be written, before any work is done."""
        for path in (self.html, self.trace):
            if path is not None:
                check_output(path)


def profile_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options; `wanted` reads them."""
    for flag, text in (
        ("--profile-trace", "Write a timeline for Perfetto or chrome://tracing to this file."),
        ("--profile-html", "Write a page with the profile and a roofline plot to this file."),
    ):
        path = click.Path(path_type=Path, dir_okay=False)
        function = click.option(flag, type=path, help=text)(function)
    return click.option("--profile", is_flag=True, help="Print how long every kernel takes.")(
        function
    )


def wanted(given: dict[str, Any]) -> Wanted:
    """What the options say; takes them out of `given`."""
    return Wanted(given.pop("profile"), given.pop("profile_html"), given.pop("profile_trace"))


def profiled(compiled: CompiledModel, inputs: Mapping[str, Any], files: Wanted) -> ModelProfile:
    """Take a profile and write the files that are wanted."""
    from tvmext.measure import page, trace
    from tvmext.measure.profile import profile_model

    with resting("measuring the machine and every kernel"):
        found = profile_model(compiled, inputs)
    for path, content in ((files.html, page.page), (files.trace, trace.trace)):
        if path is not None:
            arrays.write_text(path, content(found))
    return found


def print_profile(found: ModelProfile) -> None:
    """The kernels that take the longest, and what all of them take together."""
    from tvmext.measure.groups import groups, rate_text, share_text, time_text

    kernels = groups(found.rows)
    if not kernels:
        click.echo(f"no kernels; a run takes {time_text(found.seconds)}")
        return
    whole = sum(group.seconds for group in kernels) or 1.0
    columns = ("kernel", "rule", "calls", "time", "share", "GFLOP/s", "GB/s", "roofline", "nodes")
    rows = [
        (
            group.name,
            group.rule,
            len(group.calls),
            time_text(group.seconds),
            f"{group.seconds / whole:.1%}",
            rate_text(group.flops, group.seconds, 1e9),
            rate_text(group.bytes, group.seconds, 1e9),
            share_text(group.roofline),
            _nodes(group.nodes),
        )
        for group in kernels[:KERNELS_SHOWN]
    ]
    console.print_table("kernels", columns, rows, numeric=columns[2:8])
    left = len(kernels) - len(rows)
    if left > 0:
        rest = sum(group.seconds for group in kernels[KERNELS_SHOWN:])
        click.echo(f"and {left} more, {time_text(rest)}")
    click.echo(
        f"\n{len(found.rows)} calls take {time_text(whole)}, a run {time_text(found.seconds)}; "
        f"{found.threads} thread{'s' if found.threads > 1 else ''}, "
        f"peak {found.roof.peak / 1e9:.0f} GFLOP/s in float32"
    )


def _nodes(names: list[str]) -> str:
    more = f" + {len(names) - NODES_SHOWN}" if len(names) > NODES_SHOWN else ""
    return ", ".join(names[:NODES_SHOWN]) + more
