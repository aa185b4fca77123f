"""Modules as files that say what passes make of them, in the manner of LLVM's FileCheck.

``# RUN:`` in the first line has the flags of `tvmext opt`, the ``# CHECK`` lines below the module
what its output has. The files are programs, so that they can build modules in any way; `opt` would
take them with ``--trust``.
"""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
from filecheck.matcher import Matcher
from filecheck.options import Options

from tvmext import frontends, opt
from tvmext.cli import parameters
from tvmext.cli.opt import command

FOLDER = Path(__file__).parent
FILES = sorted(path for path in FOLDER.glob("*.py") if not path.name.startswith("test_"))


def output(path: Path, run: str) -> str:
    """What `tvmext opt PATH RUN` prints, computed in this process."""
    given = command.make_context("opt", [str(path), "--trust", *shlex.split(run)]).params
    said = parameters.model_arguments(path, given)
    model = frontends.load(path, said["dims"], trust=True)
    mod = opt.apply(model, parameters.names(given["names"]), said["target"], said["options"])
    return opt.written(mod, model, "text")


def mismatch(path: Path, text: str, folder: Path) -> bool:
    """Whether `text` is not as the ``CHECK`` lines of the file say; FileCheck tells on stderr."""
    printed = folder / "printed.txt"
    printed.write_text(text)
    return Matcher.from_opts(Options(str(path), str(printed))).run() != 0


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_passes_do_what_the_file_says(path: Path, tmp_path: Path) -> None:
    first = path.read_text().splitlines()[0]
    assert first.startswith("# RUN: ")
    assert not mismatch(path, output(path, first.removeprefix("# RUN: ")), tmp_path)


def test_a_mismatch_is_seen(tmp_path: Path) -> None:
    """The file that has no transposes in its output, beside a module that has them."""
    path = FOLDER / "transposes_cancel.py"
    assert mismatch(path, output(path, "--passes clean"), tmp_path)
