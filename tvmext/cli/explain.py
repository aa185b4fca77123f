"""``tvmext explain``: what becomes of the operators that only move data."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from . import arrays, console, parameters
from .compile import check_output
from .prices import print_prices
from .progress import Progress
from .session import Session, common_options

if TYPE_CHECKING:
    from tvmext.report import Explanation
    from tvmext.report.explanation import Totals


@click.command(
    "explain",
    short_help="Show what becomes of data movement, and how kernels are scheduled.",
    epilog="""\b
Examples:
  tvmext explain swin.onnx
  tvmext explain gpt2.onnx --dim batch=1 --dim seq=1 --dim past=127 --html gpt2.html
  tvmext explain model.onnx --records model.jsonl --cost-model learned
""",
)
@click.argument("model", type=click.Path(path_type=Path))
@click.option(
    "--html",
    "html_path",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write a page with the graph before and after, and the prices, to this file.",
)
@parameters.model_options
@parameters.options_of("opt_level", "virtual_tensors", "donate", "disabled_pass", "winograd")
@parameters.options_of("cost_model", "records")
@common_options
@click.pass_obj
def command(session: Session, model: Path, html_path: Path | None, **given: Any) -> None:
    """Show what becomes of every operator of MODEL that only moves data: a view of the same memory,
    a map that the next kernel reads through or the kernel before writes through, or a kernel of its
    own that is left, and why. Beside it stands what TVM's own passes make of the same network. Then
    the kernels, the dearest first, with the price of the decision that is taken and of the next
    best, as the cost model has them, and for kernels of unknown sizes which variant runs where.

    Nothing is compiled to code. Bytes are for the sizes that --dim says: the usual one of a range,
    64 where nothing is said.
    """
    import tvmext

    if html_path:
        check_output(html_path)
    with Progress() as progress:
        arguments = parameters.model_arguments(model, given)
        found = tvmext.explain(model, **arguments, progress=progress, output=progress.output)
    if html_path:
        from tvmext.report.html import page

        arrays.write_text(html_path, page(found))
    if session.json:
        console.print_json(found.to_json())
    else:
        _print(found)


def _print(found: Explanation) -> None:
    columns: tuple[str, ...]
    if found.operators:
        columns = ("node", "operator", "shape", "became", "in kernel", "saved")
        rows = [
            (o.node, o.operator, o.shape, o.fate, ", ".join(o.kernels), _saved(o.bytes_saved))
            for o in found.operators
        ]
        console.print_table("", columns, rows, numeric=("saved",))
        click.echo()
    if left := found.ours.movement_kernels_left:
        kernels = [(k.kernel, console.size_text(k.bytes), k.reason, k.detail) for k in left]
        columns = ("kernel", "moves", "left because", "detail")
        console.print_table(
            "kernels left that only move data", columns, kernels, numeric=("moves",)
        )
        click.echo()
    if found.prices:
        print_prices(found.prices)
        click.echo()
    sizes = ", ".join(f"{name}={size}" for name, size in found.sizes.items())
    columns = (f"at {sizes}" if sizes else "", "TVM", "tvmext")
    totals = zip(_totals(found.stock), _totals(found.ours))
    console.print_table(
        "", columns, [(name, a, b) for (name, a), (_, b) in totals], numeric=columns[1:]
    )


def _totals(side: Totals) -> list[tuple[str, str]]:
    return [
        ("movement operators", str(side.movement_operators)),
        ("movement kernels left", str(len(side.movement_kernels_left))),
        ("all kernels", str(side.kernels)),
        ("bytes moved", console.size_text(side.bytes_moved)),
        ("kernel bytes", console.size_text(side.kernel_bytes)),
        ("planned memory", console.size_text(side.planned_bytes)),
    ]


def _saved(count: int) -> str:
    sign = "-" if count < 0 else ""
    return f"{sign}{console.size_text(abs(count))}" if count else ""
