"""``tvmext tune``: candidates of a model's kernels are measured, for `compile --records`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from . import console, parameters
from .compile import check_output
from .progress import Progress
from .session import Session, common_options

if TYPE_CHECKING:
    from tvmext.tuning import Tuned


@click.command(
    "tune",
    short_help="Measure candidates of a model's kernels.",
    epilog="""\b
Examples:
  tvmext tune model.onnx --dim batch=1 --records model.jsonl
  tvmext compile model.onnx --dim batch=1 --records model.jsonl
""",
)
@click.argument("model", type=click.Path(path_type=Path))
@click.option(
    "--records",
    type=click.Path(path_type=Path, dir_okay=False),
    help="The file to append to.  [default: the model's name with .records.jsonl, in this folder]",
)
@click.option(
    "--top",
    type=click.IntRange(min=2),
    default=4,
    show_default=True,
    metavar="N",
    help="Candidates to measure for each kernel: the rule's own, and the best by price.",
)
@click.option(
    "--duration",
    type=click.FloatRange(min=0),
    metavar="SECONDS",
    help="Begin with no other kernel after so long; the dearest come first.  [default: no limit]",
)
@click.option("--again", is_flag=True, help="Measure also what the file has already.")
@parameters.model_options
@parameters.options_of("opt_level", "virtual_tensors", "donate", "winograd", "cost_model")
@common_options
@click.pass_obj
def command(
    session: Session,
    model: Path,
    records: Path | None,
    top: int,
    duration: float | None,
    again: bool,
    **given: Any,
) -> None:
    """Measure the most promising schedules of every kernel of MODEL on this machine and append what
    they took to a file of records. `compile --records FILE` then takes the fastest.

    Nobody needs this: every kernel has a schedule without it. Kernels whose sizes are known at run
    time only choose by price when they run and are not measured: --dim binds what is known. Options
    that shape kernels (--dim, -O, --virtual-tensors) must be those of `compile`. Every
    measurement is written at once: after Ctrl-C the same command goes on where it stopped.
    """
    from tvmext.tuning import tune

    records = records or Path(f"{model.stem}.records.jsonl")
    check_output(records)
    with Progress() as progress:
        arguments = parameters.model_arguments(model, given)
        found = tune(
            model,
            records,
            **arguments,
            top=top,
            seconds=float("inf") if duration is None else duration,
            again=again,
            progress=progress,
            output=progress.output,
        )
    if session.json:
        console.print_json({"records": str(records), **found.to_json()})
    else:
        _print(found, records)


def _print(found: Tuned, records: Path) -> None:
    columns = ("kernel", "rule", "calls", "tried", "us", "best", "gain", "")
    rows = [
        (
            *(one.kernel, one.rule, one.calls, one.tried),
            *(f"{seconds * 1e6:.4g}" for seconds in (one.seconds, one.best)),
            f"{one.gain:.2f}",
            "noisy" if one.noisy else "",
        )
        for one in found.kernels
    ]
    if rows:
        console.print_table("", columns, rows, numeric=columns[2:7])
        click.echo()
    if found.left:
        console.print_table("not measured", ("kernel", "rule", "because"), found.left)
        click.echo()
    total = sum(one.calls * one.seconds for one in found.kernels)
    click.echo(
        f"{records}: {found.saved * 1e6:.4g} of {total * 1e6:.4g} us a run can be saved in the "
        f"{len(found.kernels)} kernels that were measured"
    )
