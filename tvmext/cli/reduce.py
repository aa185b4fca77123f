"""``tvmext reduce``: a model that fails becomes a small one that fails in the same way."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from tvmext.errors import InputError

from . import console, parameters
from .compile import check_output
from .library import read_inputs
from .progress import resting
from .session import Session, common_options

if TYPE_CHECKING:
    from onnx import ModelProto


@click.command(
    "reduce",
    short_help="Shrink a model that fails.",
    epilog="""\b
Examples:
  tvmext reduce model.onnx --check "tvmext verify {}"
  tvmext reduce model.onnx --check "tvmext compile {} -o out.so" --match "not supported"
""",
)
@click.argument("model", type=click.Path(path_type=Path))
@click.option(
    "--check",
    required=True,
    metavar="COMMAND",
    help="What fails for the model: ends with another exit code than 0. {} is the model's path.",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    help="The model to write.  [default: NAME.reduced.onnx in this folder]",
)
@click.option(
    "--match", default="", metavar="REGEX", help="A failure counts only if its output has this."
)
@click.option(
    "--timeout",
    type=click.FloatRange(min=0, min_open=True),
    default=300.0,
    show_default=True,
    metavar="SECONDS",
    help="A check that takes longer has failed.",
)
@click.option(
    "--dim",
    "dims",
    multiple=True,
    metavar="NAME=SIZE",
    help="The size of a free dim, to see the integers inside of the model.  [default: 2]",
)
@click.option(
    "-i",
    "--inputs",
    "inputs_path",
    type=click.Path(path_type=Path),
    help="An .npz file with arrays by input name, for the same.  [default: made up]",
)
@common_options
@click.pass_obj
def command(
    session: Session,
    model: Path,
    check: str,
    output: Path | None,
    match: str,
    timeout: float,
    dims: tuple[str, ...],
    inputs_path: Path | None,
) -> None:
    """Find the fewest nodes of the ONNX file MODEL for which a command still fails, with the same
    exit code as for all of it, and write them as a model.

    The command runs in an empty folder, without a shell. Every smaller model that fails is written
    at once: what is there after Ctrl-C is the smallest so far.
    """
    from tvmext.reduction import reduce
    from tvmext.reduction.command import Command
    from tvmext.reduction.reduce import some_inputs
    from tvmext.verification.source import OnnxSource

    output = output or Path(f"{model.stem}.reduced.onnx")
    check_output(output)
    tried = Command.parse(check, timeout, match)
    sizes = parameters.collect(dims, parameters.dim_size)
    source = OnnxSource(model)
    whole = source.with_outputs([value.name for value in source.graph.output])
    made, given = some_inputs(whole, sizes), read_inputs(inputs_path)
    if unknown := [name for name in given if name not in made]:
        raise InputError(
            f"the model has no input '{unknown[0]}'", hint=f"its inputs are {', '.join(made)}"
        )
    inputs = {**made, **given}

    def found(part: ModelProto) -> None:
        _write(output, part)
        count = len(part.graph.node)
        click.echo(f"{count} node{'s' * (count != 1)}, after {tried.runs} checks", err=True)

    def fails(part: ModelProto) -> bool:
        with resting(f"{len(part.graph.node)} nodes, check {tried.runs + 1}"):
            return tried.fails(part)

    smallest = reduce(whole, fails, inputs, found)
    _write(output, smallest)
    nodes = [f"{node.op_type} '{node.name}'" for node in smallest.graph.node]
    if session.json:
        console.print_json(
            {
                "artifact": str(output),
                "nodes": [node.name for node in smallest.graph.node],
                "nodes_before": len(whole.graph.node),
                "checks": tried.runs,
                "exit_code": tried.code,
            }
        )
        return
    click.echo(
        f"{output}: {len(nodes)} of {len(whole.graph.node)} nodes, "
        f"exit code {tried.code}, {tried.runs} checks"
    )
    for node in nodes[:20]:
        click.echo(f"  {node}")


def _write(path: Path, model: ModelProto) -> None:
    from tvmext.artifact import write_atomically

    with write_atomically(path) as unfinished:
        unfinished.write_bytes(model.SerializeToString())
