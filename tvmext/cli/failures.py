"""From exceptions to exit codes and messages: ``error: ...`` and what to try, on stderr.

| code | when |
|---|---|
| 0 | done |
| 1 | a check failed |
| 2 | the user's mistake: a model, an input, an option, or a file that cannot be read or written |
| 3 | an operator that is not supported |
| 70 | a defect of ours |
| 130 | interrupted with Ctrl-C |
| 141 | whoever read stdout went away |
"""

from __future__ import annotations

import os
import shlex
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import click

from tvmext import __version__
from tvmext.errors import InternalError, TvmextError, UserError

from .session import Session

INTERRUPTED = 128 + 2
BROKEN_PIPE = 128 + 13


class ReaderGoneError(Exception):
    """Nobody reads stdout any more."""


@dataclass
class Code:
    """The exit code of the block that `exit_code` guards, known when the block has ended."""

    value: int = 0


@contextmanager
def exit_code(session: Session) -> Iterator[Code]:
    """Run a block; turn what it raises into a message on stderr and the exit code."""
    code = Code()
    try:
        try:
            yield code
        finally:
            sys.stdout.flush()
    except (ReaderGoneError, BrokenPipeError):
        code.value = BROKEN_PIPE
        _silence_stdout()
    except (KeyboardInterrupt, click.Abort):
        code.value = INTERRUPTED
        _say("interrupted")
    except Exception as error:
        if session.traceback:
            traceback.print_exc()
        if isinstance(error, OSError):
            _silence_stdout()
        code.value = _report(_as_ours(error), session)


def _as_ours(error: Exception) -> TvmextError:
    """The error as one of `tvmext.errors`; what is not expected is a defect."""
    if isinstance(error, TvmextError):
        return error
    if isinstance(error, click.UsageError):
        command = error.ctx.command_path if error.ctx else "tvmext"
        return UserError(error.format_message().rstrip("."), hint=f"{command} --help")
    if isinstance(error, click.ClickException):
        return UserError(error.format_message().rstrip("."))
    if isinstance(error, OSError):
        where = f"'{error.filename}'" if error.filename else "cannot read or write"
        return UserError(f"{where}: {(error.strerror or str(error)).lower()}")
    summary = "".join(traceback.format_exception_only(error)).strip()
    return InternalError(summary)


def _report(error: TvmextError, session: Session) -> int:
    if error.exit_code != InternalError.exit_code:
        _say(f"error: {error}")
        return error.exit_code
    _say(f"internal error: {error}")
    command = shlex.join(["tvmext", *session.argv])
    _say(
        "This is a defect of tvmext or of a library below it, not of your model. Please report it\n"
        f"with the model, the version (tvmext {__version__}) and the output of this command:\n"
        f"  {command}" + ("" if session.traceback else " --traceback")
    )
    return error.exit_code


def _silence_stdout() -> None:
    """Let the interpreter's last flush, on its way out, go nowhere: it would fail as well."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _say(text: str) -> None:
    try:
        click.echo(text, err=True)
    except BrokenPipeError:
        return  # nobody listens; the exit code still tells
