"""Writes docs/cli-reference.md from the command line's own declarations: ``python -m
tools.reference``; a test tells when that is due."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click

from tvmext.cli import tvmext

PAGE = Path(__file__).parents[2] / "docs" / "cli-reference.md"
HEAD = """\
# The command line, option by option

Every verb with all it takes. [cli.md](cli.md) says what they are for and what they print. Written
by `python -m tools.reference`; do not edit.
"""


def page() -> str:
    """The page as it has to be."""
    parts = [HEAD]
    for name, verb in tvmext.commands.items():
        parts += ["", f"## tvmext {name}", "", *_verb(name, verb)]
    return "\n".join(parts) + "\n"


def _verb(name: str, verb: click.Command) -> Iterator[str]:
    arguments = [_argument(p) for p in verb.params if isinstance(p, click.Argument)]
    yield from ("```", " ".join(["tvmext", name, "[OPTIONS]", *arguments]), "```", "")
    for paragraph in (verb.help or "").split("\n\n"):
        yield from (" ".join(paragraph.split()), "")
    yield from ("| option | meaning |", "|---|---|")
    for option in verb.params:
        if isinstance(option, click.Option):
            yield f"| {_flags(option)} | {_meaning(option)} |"
    lines = (verb.epilog or "").replace("\b", "").strip().splitlines()[1:]
    yield from ("", "```sh", *(line.strip() for line in lines), "```")


def _argument(argument: click.Argument) -> str:
    name = argument.metavar or (argument.name or "").upper()
    return name if argument.required else f"[{name}]"


def _flags(option: click.Option) -> str:
    value = "" if option.is_flag else f" {_value(option)}"
    return ", ".join(f"`{flag}{value}`" for flag in [*option.opts, *option.secondary_opts])


def _value(option: click.Option) -> str:
    if isinstance(option.type, click.Choice):
        return "|".join(map(str, option.type.choices)).replace("|", "\\|")
    return (option.metavar or option.type.name.split()[0].upper()).replace("|", "\\|")


def _meaning(option: click.Option) -> str:
    text = " ".join((option.help or "").split()).replace("|", "\\|")
    shown = option.show_default and not option.is_flag
    return f"{text} Default: `{option.default}`." if shown else text


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
