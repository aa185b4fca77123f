"""What one invocation of the command line carries: its arguments and the options of every verb."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import click


@dataclass
class Session:
    """One invocation. `json` asks for results as JSON, `traceback` for the stack of an error."""

    argv: tuple[str, ...]
    json: bool = False
    traceback: bool = False


def _setter(name: str) -> Callable[[click.Context, click.Parameter, bool], None]:
    def set_on_session(context: click.Context, _: click.Parameter, value: bool) -> None:
        if value:
            setattr(context.find_object(Session), name, True)

    return set_on_session


def common_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that every verb has; they end up on the `Session`."""
    for flag, help_text in (
        ("--traceback", "Show the stack of an error (for developers)."),
        ("--json", "Print the result as JSON."),
    ):
        function = click.option(
            flag,
            is_flag=True,
            expose_value=False,
            callback=_setter(flag.removeprefix("--")),
            help=help_text,
        )(function)
    return function
