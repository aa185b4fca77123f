"""What is going on, on stderr: a moving line on a terminal, one line per step elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from rich import progress

    from tvmext.build import Progress as Event


class Progress:
    """The `progress` and `output` callbacks of `tvmext.compile`, as a context.

    On a terminal one line shows the time and what is being worked on; elsewhere a line is printed
    whenever a step begins, and details are left out.
    """

    def __init__(self) -> None:
        self._step = ""
        self._line: progress.Progress | None = None

    def __enter__(self) -> Progress:
        if sys.stderr.isatty():
            self._line = _moving_line()
            self._line.start()
        return self

    def __call__(self, event: Event) -> None:
        """Work on `event.detail` of `event.step` begins."""
        if self._line is not None:
            text = f"{event.step}  {event.detail}".rstrip()
            self._line.update(self._line.task_ids[0], description=text)
        elif event.step != self._step:
            click.echo(event.step, err=True)
        self._step = event.step

    def output(self, text: str) -> None:
        """What the compilation prints, such as a module after a pass."""
        if self._line is not None:
            self._line.console.out(text, end="", highlight=False)
        else:
            click.echo(text, nl=False, err=True)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        stack: TracebackType | None,
    ) -> None:
        if self._line is not None:
            self._line.stop()


@contextmanager
def resting(text: str) -> Iterator[None]:
    """A line on a terminal while something is measured: it does not move, which would disturb."""
    if not sys.stderr.isatty():
        yield
        return
    click.echo(f"{text} ...", nl=False, err=True)
    try:
        yield
    finally:
        click.echo("\r\033[K", nl=False, err=True)


def _moving_line() -> progress.Progress:
    """Spinner, elapsed time and text, gone when it stops."""
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
    from rich.table import Column

    text = TextColumn(
        "{task.description}",
        markup=False,
        table_column=Column(no_wrap=True, overflow="ellipsis", ratio=1),
    )
    line = Progress(
        SpinnerColumn(),
        TimeElapsedColumn(),
        text,
        console=Console(stderr=True),
        transient=True,
        expand=True,
    )
    line.add_task("start", total=None)
    return line
