"""The command line, one file per verb; `main` is the console script ``tvmext``.

Results go to stdout, everything else to stderr. Exit codes are those of `tvmext.errors`, and 130
after Ctrl-C. Nothing heavy is imported before a verb needs it: ``tvmext --help`` answers at once.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import NoReturn

import click

from tvmext import __version__

from . import bench, compile, completion, explain, inspect, opt, reduce, run, tune, verify
from .failures import ReaderGoneError, exit_code
from .session import Session


def _print_version(context: click.Context, _: click.Parameter, wanted: bool) -> None:
    if not wanted or context.resilient_parsing:
        return
    from importlib.metadata import version

    click.echo(f"tvmext {__version__} (apache-tvm {version('apache-tvm')})")
    context.exit()


class _Verbs(click.Group):
    """The group of verbs; a reader of stdout that goes away is not taken for a failed check."""

    def invoke(self, ctx: click.Context) -> None:
        try:
            super().invoke(ctx)
            sys.stdout.flush()
        except BrokenPipeError as error:
            raise ReaderGoneError from error  # click would exit with 1


@click.group(
    cls=_Verbs,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Example: tvmext compile model.onnx && tvmext run model.so --print-time",
    no_args_is_help=False,
)
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_print_version,
    help="Print the versions of tvmext and TVM and exit.",
)
def tvmext() -> None:
    """Compile trained networks to shared libraries that run fast on any input size."""


for verb in (compile, run, verify, bench, inspect, explain, tune, reduce, opt, completion):
    tvmext.add_command(verb.command)


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Run the command line on `argv` (default: the arguments of this process) and exit."""
    session = Session(tuple(sys.argv[1:] if argv is None else argv))
    with exit_code(session) as code:
        tvmext.main(args=list(session.argv), prog_name="tvmext", obj=session, standalone_mode=False)
    sys.exit(code.value)
