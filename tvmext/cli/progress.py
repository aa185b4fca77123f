"""What is going on, on stderr: a moving line on a terminal, one line per step elsewhere."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from rich.status import Status

    from tvmext.build import Progress as Event


class Progress:
    """The `progress` callback of `tvmext.compile`, as a context.

    It is called with what is being worked on. On a terminal one line shows the latest; elsewhere a
    line is printed whenever a step begins, and details are left out.
    """

    def __init__(self) -> None:
        self._step = ""
        self._status: Status | None = None

    def __enter__(self) -> Progress:
        if sys.stderr.isatty():
            from rich.console import Console

            self._status = Console(stderr=True).status("starting")
            self._status.start()
        return self

    def __call__(self, event: Event) -> None:
        if self._status is not None:
            from rich.text import Text

            text = f"{event.seconds:5.1f} s  {event.step}  {event.detail}".rstrip()
            self._status.update(Text(text, overflow="ellipsis", no_wrap=True))
        elif event.step != self._step:
            click.echo(event.step, err=True)
        self._step = event.step

    def output(self, text: str) -> None:
        """What the compilation prints, such as a module after a pass, in between."""
        if self._status is not None:
            self._status.console.out(text, end="", highlight=False)
        else:
            click.echo(text, nl=False, err=True)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        stack: TracebackType | None,
    ) -> None:
        if self._status is not None:
            self._status.stop()
