"""``tvmext verify``: outputs are compared with a reference."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from . import arrays, console, parameters
from .progress import Progress
from .session import Session, common_options


@click.command(
    "verify",
    short_help="Compare outputs with a reference.",
    epilog="""\b
Examples:
  tvmext verify model.onnx
  tvmext verify model.onnx model.so --dim batch=1,3,7 --rtol 1e-3 --atol 1e-4
""",
)
@click.argument("model", type=click.Path(path_type=Path))
@click.argument("artifact", type=click.Path(path_type=Path), required=False)
@click.option(
    "-i",
    "--inputs",
    "inputs_path",
    type=click.Path(path_type=Path),
    help="An .npz file with arrays by input name.  [default: random]",
)
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
    "--atol", type=click.FloatRange(min=0), help="Absolute tolerance.  [default: by dtype]"
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
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of the random inputs.")
@parameters.runtime_options
@parameters.format_options
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
    seed: int,
    **given: Any,
) -> int:
    """Run MODEL compiled and by a reference on the same inputs, and compare every output.

    ARTIFACT is a library that was compiled from MODEL; without it MODEL is compiled first.
    """
    raise click.ClickException("not yet")
