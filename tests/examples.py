"""The commands that the docs, the README and the help texts show."""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tvmext.cli import tvmext

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
GENERATED = "cli-reference.md"
"""Its examples are those of the help texts."""

_BLOCK = re.compile(r"^```(?:sh|console)\n(.*?)^```", re.DOTALL | re.MULTILINE)
_INDENTED = re.compile(r"(?:^    \S.*\n)+", re.MULTILINE)
_SPAN = re.compile(r"`(python -m tools[^`]+)`")
_COMMAND = re.compile(r"(?:tvmext|python -m [\w.]+)( |$)")


@dataclass(frozen=True)
class Example:
    """A command as it stands in `place`; `error` is the message that is shown below it."""

    place: str
    text: str
    error: str = ""

    @property
    def words(self) -> list[str]:
        return shlex.split(self.text, comments=True)

    def __str__(self) -> str:
        return f"{self.place}: {self.text}"


def examples() -> Iterator[Example]:
    """All of them, in the order of the pages, then those of the help texts."""
    for page in (page for page in PAGES if page.name != GENERATED):
        text = page.read_text(encoding="utf-8")
        for block in (*_BLOCK.findall(text), *_INDENTED.findall(text)):
            yield from _commands(page.name, block)
    for verb in (tvmext, *tvmext.commands.values()):
        epilog = (verb.epilog or "").replace("Example: ", "")
        yield from _commands(f"tvmext {verb.name} --help", epilog)


def tool_examples() -> Iterator[Example]:
    """Those of ``python -m tools...``: of the pages, also inside of sentences, of the docstrings of
    the tools, and of the workflows."""
    yield from (one for one in examples() if one.words[0] == "python")
    for page in PAGES + sorted((ROOT / "docs").glob("*/*.md")):
        for span in _SPAN.findall(page.read_text(encoding="utf-8")):
            yield Example(page.name, " ".join(span.split()))
    for file in sorted((ROOT / "tools").rglob("*.py")):
        text = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8")))
        yield from _commands(str(file.relative_to(ROOT)), text or "")
    for file in sorted((ROOT / ".github" / "workflows").glob("*.yml")):
        yield from _commands(file.name, file.read_text().replace("- run: ", ""))


def _commands(place: str, block: str) -> Iterator[Example]:
    lines = [line.strip().removeprefix("$ ") for line in block.replace("\\\n", " ").splitlines()]
    for line, following in zip(lines, [*lines[1:], ""]):
        if _COMMAND.match(line):
            error = following if following.startswith("error: ") else ""
            for part in line.split(" && "):
                yield Example(place, part, error)
