"""``tvmext verify``: outputs are compared with a reference."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tvmext.errors import CheckFailed

from . import console, parameters
from .library import library_options, opened, read_inputs, sizes
from .progress import Progress
from .session import Session, common_options

if TYPE_CHECKING:
    from tvmext.verification import Comparison, PassChange, Report


@click.command(
    "verify",
    short_help="Compare outputs with a reference.",
    epilog="""\b
Examples:
  tvmext verify model.onnx
  tvmext verify model.onnx model.so --dim batch=1,3,7 --rtol 1e-3 --atol 1e-4
  tvmext verify model.onnx model.so --every-value --bisect-passes
""",
)
@click.argument("model", type=click.Path(path_type=Path))
@click.argument("artifact", type=click.Path(path_type=Path), required=False)
@click.option(
    "--reference",
    default="auto",
    show_default=True,
    metavar="auto|onnxruntime|onnx|FILE.npz",
    help="What computes the expected outputs, or a file that holds them by name.",
)
@click.option(
    "--rtol", type=click.FloatRange(min=0), help="Relative tolerance.  [default: by dtype]"
)
@click.option(
    "--atol",
    type=click.FloatRange(min=0),
    help="Absolute tolerance.  [default: by dtype, times the scale of the output]",
)
@click.option(
    "--dim",
    "dims",
    multiple=True,
    metavar="NAME=SIZE,...",
    help="Sizes to verify at, one after the other; several dims go through theirs together.",
)
@click.option(
    "--every-value", is_flag=True, help="Find the first value inside the model that diverges."
)
@click.option(
    "--bisect-passes",
    is_flag=True,
    help="Find the first pass of the compiler that changes results.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of the random inputs.")
@library_options
@common_options
@click.pass_obj
def command(
    session: Session,
    model: Path,
    artifact: Path | None,
    inputs_path: Path | None,
    reference: str,
    rtol: float | None,
    atol: float | None,
    dims: tuple[str, ...],
    every_value: bool,
    bisect_passes: bool,
    seed: int,
    **given: Any,
) -> None:
    """Run MODEL compiled and by a reference on the same inputs, and compare every output.

    ARTIFACT is a library that was compiled from MODEL; without it MODEL is compiled first. Inputs
    that --inputs does not give are random.
    """
    import tvmext
    from tvmext.verification import check_reference

    asked = parameters.collect(dims, parameters.dim_sizes)
    check_reference(model, reference, given["model_format"])
    inputs = read_inputs(inputs_path)
    compiled = opened(model, artifact, given)
    at = {name: (size,) for name, size in sizes(compiled, given).items()}
    with Progress() as progress:
        report = tvmext.verify(
            model,
            compiled,
            every_value=every_value,
            bisect_passes=bisect_passes,
            trust=given["trust"],
            progress=progress,
            model_format=given["model_format"],
            inputs=inputs,
            dims=at | asked,
            seed=seed,
            reference=reference,
            rtol=rtol,
            atol=atol,
        )
    if session.json:
        console.print_json(report.to_json())
    else:
        _print(report)
    if not report.passed:
        raise CheckFailed(
            f"outputs of '{artifact or model}' differ from {report.reference}",
            hint="" if every_value or bisect_passes else _NEXT,
        )


_NEXT = "--every-value, for the first value that differs, --bisect-passes, for the pass at fault"


def _print(report: Report) -> None:
    columns = ("sizes", "output", "result", "max abs", "max rel", "worst at", "got", "expected")
    rows = [
        (", ".join(f"{name}={size}" for name, size in case.sizes.items()), *_row(output))
        for case in report.cases
        for output in case.outputs
    ]
    title = f"compared with {report.reference}"
    console.print_table(title, columns, rows, numeric=("max abs", "max rel", "got", "expected"))
    if found := report.divergence:
        click.echo()
        if found.comparison:
            at = f"'{found.value}', made by node '{found.node}' ({found.op_type})"
            difference = f"max abs {found.comparison.max_abs:.3g}"
            click.echo(f"first value that differs: {at}: {difference}")
        else:
            click.echo(f"{found.values_compared} values compared: {found.reason}")
    if change := report.change:
        click.echo()
        click.echo(_change(change))


def _change(change: PassChange) -> str:
    tried = f"{change.tried} compilations"
    if not change.passes:
        return f"{tried}: {change.reason}"
    if len(change.passes) == 1:
        where = f"pass {change.place} of {change.total}, {tried}"
        kernels = ", ".join(f"'{name}', by rule '{rule}'" for name, rule in change.kernels.items())
        more = f"\nfirst kernel that it gets wrong: {kernels}" if kernels else ""
        return f"first pass that changes results: {change.passes[0]} ({where}){more}"
    return f"a pass that changes results is among {', '.join(change.passes)} ({tried})"


def _row(output: Comparison) -> tuple[str, ...]:
    if output.problem:
        return output.name, f"FAILED: {output.problem}", "", "", "", "", ""
    result = "PASSED" if output.passed else f"FAILED {output.failed} of {output.total}"
    if output.where is None:
        return output.name, result, "0", "0", "", "", ""
    return (
        output.name,
        result,
        f"{output.max_abs:.3g}",
        f"{output.max_rel:.3g}",
        console.shape_text(output.where),
        console.number_text(output.got),
        console.number_text(output.expected),
    )
