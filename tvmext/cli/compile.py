"""``tvmext compile``: a model becomes a shared library."""

from __future__ import annotations

import errno
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import click

from tvmext.artifact import naming

from . import console, parameters
from .progress import Progress
from .session import Session, common_options


@click.command(
    "compile",
    short_help="Compile a model to a shared library.",
    epilog="""\b
Examples:
  tvmext compile resnet50.onnx -o resnet50.so
  tvmext compile bert.onnx --dim batch=1:64 --dim seq=128 --target "llvm -mcpu=x86-64-v3"
""",
)
@click.argument("model", type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    help="The library to write.  [default: the model's name with .so, in this folder]",
)
@parameters.model_options
@parameters.compile_options
@parameters.cache_options
@common_options
@click.pass_obj
def command(session: Session, model: Path, output: Path | None, **given: Any) -> None:
    """Compile MODEL, an ONNX or Relax file, to one .so that holds code, weights and metadata.

    Dims that the model names stay free: the library runs at every size. --dim binds them to a size
    or says in which range they will be.
    """
    output = output or Path(f"{model.stem}.so")
    check_output(output)
    started = time.monotonic()
    with Progress() as progress:
        compiled = parameters.compile_model(model, given, progress, output.with_suffix(""))
    compiled.save(output)
    result: dict[str, Any] = {
        "artifact": str(output),
        "bytes": output.stat().st_size,
        "seconds": round(time.monotonic() - started, 3),
        "metadata": console.described(compiled.metadata),
    }
    if session.json:
        console.print_json(result)
    else:
        size = console.size_text(result["bytes"])
        click.echo(f"{output}: {size}, compiled in {result['seconds']:.1f} s")
        console.print_signature(compiled.inputs, compiled.outputs)


def check_output(path: Path) -> None:
    """Raises ArtifactError, before any work is done, if no file can be written at `path`."""
    with naming(path):
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        tempfile.TemporaryFile(dir=path.parent).close()
