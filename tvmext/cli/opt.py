"""``tvmext opt``: named passes on a module, whose text is the result."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from tvmext.errors import OptionError

from . import arrays, console, parameters
from .compile import check_output
from .progress import Progress
from .session import Session, common_options


@click.command(
    "opt",
    short_help="Run named passes on a model and print the module.",
    epilog="""\b
Examples:
  tvmext opt --list-passes
  tvmext opt model.onnx --passes normalise,virtual-tensors
  tvmext opt model.onnx --passes normalise --print-after FoldConstants -o model.json
  tvmext opt model.json --passes kernels,fuse
""",
)
@click.argument("model", type=click.Path(path_type=Path), required=False)
@click.option(
    "--passes",
    "names",
    multiple=True,
    metavar="NAME,...",
    help="The passes to run, in this order: names of passes (FuseTIR or fuse-tir), or of phases.",
)
@click.option("--list-passes", is_flag=True, help="List the passes by phase, in the usual order.")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Where to write the module: as JSON (.json) or a program in TVMScript (.py), both with "
    "weights and read by opt again.  [default: text without weights on stdout]",
)
@click.option(
    "--print-after",
    "after",
    multiple=True,
    metavar="NAME,...",
    help="Print the module after these passes, on stderr.",
)
@click.option("--print-after-all", is_flag=True, help="Print the module after every pass.")
@click.option("--no-check", is_flag=True, help="Do not check that modules are well-formed.")
@parameters.model_options
@parameters.options_of("opt_level", "virtual_tensors", "donate", "winograd", "cost_model")
@parameters.options_of("pass_config", "print_pass_times")
@common_options
@click.pass_obj
def command(
    session: Session,
    model: Path | None,
    names: tuple[str, ...],
    list_passes: bool,
    output: Path | None,
    after: tuple[str, ...],
    print_after_all: bool,
    no_check: bool,
    **given: Any,
) -> None:
    """Run the passes that --passes names on MODEL, one after the other, and print the module that
    comes out. After each the module must be well-formed.

    MODEL is ONNX, or Relax as JSON: data, which may come from anywhere. TVMScript, a .py file, is a
    Python program, and TVM's parser evaluates Python that stands in it: both run what the file
    says, so that it takes --trust. Modules to be exchanged are better written as JSON.
    """
    from tvmext import opt

    if list_passes:
        _list(session, opt.passes_of(parameters.target_of(given), parameters.as_options(given)))
        return
    if model is None:
        raise OptionError("there is no MODEL", hint="tvmext opt model.onnx --passes normalise")
    if output:
        check_output(output)
    printed = ("all",) if print_after_all else parameters.names(after)
    form = _form(output, session)
    with Progress() as progress:
        arguments = parameters.model_arguments(model, given, print_ir_after=printed)
        text = opt.opt(
            model,
            parameters.names(names),
            **arguments,
            form=form,
            check=not no_check,
            progress=progress,
            output=progress.output,
        )
    if output:
        arrays.write_text(output, text)
        click.echo(f"{output}: {console.size_text(len(text))}", err=True)
    else:
        click.echo(text, nl=False)


def _form(output: Path | None, session: Session) -> str:
    if output is None:
        return "json" if session.json else "text"
    if output.suffix not in (".json", ".py"):
        raise OptionError(f"'{output}' is neither .json nor .py", hint=f"-o {output.stem}.json")
    return "json" if output.suffix == ".json" else "script"


def _list(session: Session, phases: dict[str, list[str]]) -> None:
    if session.json:
        console.print_json(phases)
        return
    rows = [
        (name if place == 0 else "", each)
        for name, passes in phases.items()
        for place, each in enumerate(passes or ["-"])
    ]
    console.print_table("", ("phase", "pass"), rows)
