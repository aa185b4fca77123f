"""A case in a folder: its model and inputs, and the libraries that both sides make of it.

``python -m tools.nightly.sides REQUEST`` makes one in a process of its own (`ahead.py`). REQUEST
and the answer are JSON objects: "case", "folder" and "settings"; "ours" and "base", rows of what
each checkout said (build_side.py).
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tvmext.arch import physical_cores, resolve, to_target

from ..zoo.runner import Row, answer, run_module
from . import commits
from .case import draw
from .cases import Case
from .judge import beyond
from .stats import REPEATS

CASE = "tools.nightly.case"
SIDES = ("ours", "base")


def core_to_time_on() -> int | None:
    """The last core that this process may use, if there are others to compile on."""
    cores = physical_cores()
    return cores[-1] if len(cores) > 1 else None


@dataclass(frozen=True)
class Settings:
    """`base` is the checkout to compare with, None for none. `under` is a command that timed
    processes run under, `seconds` what one comparison may take, `limit` what one process may.
    They run on `core`, everything else on the other ones. `cpu` is this machine as a target: both
    sides have to see the same number of cores."""

    root: Path
    base: Path | None
    seconds: float
    limit: float
    under: str = ""
    core: int | None = field(default_factory=core_to_time_on)
    cpu: Mapping[str, Any] = field(default_factory=lambda: to_target(resolve("llvm")))

    def target(self, case: Case) -> str | dict[str, Any]:
        """What a case is compiled for."""
        return dict(self.cpu) if case.target == "llvm" else case.target


def made(case: Case, folder: Path, settings: Settings) -> Row:
    """Draw a case and compile it."""
    draw(case.part, case.model, case.mode, folder)
    rows = compiled(case, folder, settings)
    steady(rows, lambda: compiled(case, folder, settings))
    return dict(zip(SIDES, rows))


def drawn(case: Case, folder: Path, limit: float) -> Row:
    """Write the model and the inputs of a case, by a process of its own."""
    command = [CASE, "draw", "--folder", str(folder), "--case", case.part, case.model, case.mode]
    return run_module(command, limit)


def request(case: Case, folder: Path, side: str, settings: Settings) -> dict[str, Any]:
    """What a checkout is asked to compile (build_side.py)."""
    told = json.loads((folder / "case.json").read_text())
    paths = {"model": str(folder / "model.onnx"), "library": str(folder / f"{side}.so")}
    return {**told, **paths, "target": settings.target(case)}


def compiled(case: Case, folder: Path, settings: Settings) -> list[Row]:
    """The rows of ours and, if there is one, of the base, compiled side by side."""
    roots = [root for root in (settings.root, settings.base) if root]
    wanted = [(r, request(case, folder, side, settings)) for r, side in zip(roots, SIDES)]
    return commits.builds(wanted, settings.limit)


def steady(built: Sequence[Row], again: Callable[[], list[Row]]) -> None:
    """Where compiling seems slower, compile again: the least seconds of each side count."""
    name = "compile_seconds"
    for _ in range(REPEATS):
        ours, base = built[0], built[-1]
        if name not in ours or name not in base or not beyond(name, ours[name], base[name]):
            return
        for row, other in zip(built, again()):
            row[name] = min(row[name], other.get(name, row[name]))


def main() -> int:
    """Answer one request, away from the core that others are timed on."""
    asked = json.loads(sys.argv[1])
    told = asked["settings"]
    base = Path(told["base"]) if told["base"] else None
    settings = Settings(**{**told, "root": Path(told["root"]), "base": base})
    if settings.core is not None:
        with suppress(OSError):  # a container may have taken cores away since
            os.sched_setaffinity(0, set(physical_cores()) - {settings.core})
    with commits.interruptible():
        return answer(lambda: made(Case(**asked["case"]), Path(asked["folder"]), settings))


if __name__ == "__main__":
    sys.exit(main())
