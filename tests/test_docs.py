"""What the docs say, done: the programs in docs/deploy.md run as they stand there."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli import networks

DOCS = Path(__file__).parents[1] / "docs"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with model.so, the model that the examples are about, and deploy.cpp."""
    import tvmext

    path = tmp_path_factory.mktemp("deploy")
    tvmext.compile(networks.linear()).save(path / "model.so")
    shutil.copy(DOCS / "deploy.cpp", path)
    return path


def marked(language: str) -> str:
    """The code block of docs/deploy.md, in this language, that is marked as run by a test."""
    text = (DOCS / "deploy.md").read_text()
    blocks = re.findall(rf"<!-- tests/test_docs.py .*-->\n```{language}\n(.*?)```", text, re.DOTALL)
    assert len(blocks) == 1
    return str(blocks[0])


def done(command: list[str], folder: Path) -> str:
    finished = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120)
    assert finished.returncode == 0, finished.stderr
    return finished.stdout


def test_plain_tvm_runs_a_library(folder: Path) -> None:
    program = marked("python") + "print(y.round(2))"
    out = done([sys.executable, "-c", program], folder)
    assert "[[0.   0.   0.73]\n [0.   0.   0.73]]" in out
    assert "'name': 'x'" in out


@pytest.mark.skipif(not shutil.which("g++"), reason="needs g++")
def test_a_c_plus_plus_program_runs_a_library(folder: Path) -> None:
    commands = marked("sh").replace("python3", sys.executable)
    out = done(["bash", "-euc", commands], folder).splitlines()
    assert '"name": "x"' in out[0]
    assert [float(line) for line in out[1:]] == pytest.approx([0, 0, 8 / 11] * 2)


def test_links_lead_somewhere() -> None:
    for page in (*DOCS.glob("*.md"), DOCS.parent / "README.md"):
        for target in re.findall(r"\]\((?!http|#)([^)#]+)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"
