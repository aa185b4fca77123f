"""The tutorials, done: every program and command as it stands there, in order.

Blocks marked `python` run in one process, one after the other; blocks marked `sh` in a shell.
What is marked `console` is only parsed (test_examples.py, test_tool_examples.py): it wants a GPU,
a quiet machine or more time.
"""

from __future__ import annotations

import linecache
import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from tests.examples import ROOT

TUTORIALS = sorted((ROOT / "docs" / "tutorials").glob("*.md"))
NEEDS = {"torch": "torch", "cuda": "cuda.bindings"}
"""What cannot be imported everywhere, by tutorial."""

_BLOCK = re.compile(r"^```(python|sh)\n(.*?)^```", re.DOTALL | re.MULTILINE)


def test_tutorials_are_found() -> None:
    assert len(TUTORIALS) > 6
    assert all(_BLOCK.search(page.read_text(encoding="utf-8")) for page in TUTORIALS)


@pytest.mark.parametrize("page", TUTORIALS, ids=lambda page: page.stem)
def test_tutorial(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if page.stem in NEEDS:
        pytest.importorskip(NEEDS[page.stem])
    (tmp_path / "tests").symlink_to(ROOT / "tests")
    bin_folder = tmp_path / "bin"
    bin_folder.mkdir()
    for name, start in (("tvmext", "-m tvmext"), ("python", "")):
        (bin_folder / name).write_text(f'#!/bin/sh\nexec {sys.executable} {start} "$@"\n')
        (bin_folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{bin_folder}:{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("TVMEXT_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    module = ModuleType(f"tutorial_{page.stem}")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    for number, (language, text) in enumerate(_BLOCK.findall(page.read_text(encoding="utf-8"))):
        place = f"{page.name}, block {number}"
        if language == "sh":
            done = subprocess.run(["bash", "-euc", text], capture_output=True, text=True)
            assert done.returncode == 0, f"{place}\n{done.stdout}\n{done.stderr}"
        else:
            linecache.cache[place] = (len(text), None, text.splitlines(keepends=True), place)
            exec(compile(text, place, "exec"), vars(module))
