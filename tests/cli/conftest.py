"""The command line called in this process, and a tiny model and library for the whole session."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.cli import networks
from tvmext.cli import main


@dataclass(frozen=True)
class Result:
    """How a call of the command line ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Call = Callable[..., Result]


@pytest.fixture
def tvmext(capfd: pytest.CaptureFixture[str]) -> Call:
    """``tvmext("run", path, ...)`` calls the command line in this process."""

    def call(*arguments: object) -> Result:
        capfd.readouterr()
        with pytest.raises(SystemExit) as exit_request:
            main([str(argument) for argument in arguments])
        out, err = capfd.readouterr()
        assert isinstance(exit_request.value.code, int)
        return Result(exit_request.value.code, out, err)

    return call


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """y = relu(x @ w) with a free dim "batch", as a file."""
    path = tmp_path_factory.mktemp("tiny") / "tiny.onnx"
    path.write_bytes(networks.linear().SerializeToString())
    return path


@pytest.fixture(scope="session")
def tiny_library(tiny: Path) -> Path:
    """`tiny`, compiled by the command line as a process of its own."""
    path = tiny.with_suffix(".so")
    command = [sys.executable, "-m", "tvmext", "compile", str(tiny), "-o", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return path
