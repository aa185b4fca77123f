"""Results on stdout, progress on stderr, colours and movement on terminals only."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest
from onnx import helper

from tests.cli import networks
from tvmext.cli.progress import resting

STEP = re.compile(rb"start|import|passes|build|link")
"""Which of them are drawn is a matter of when."""
COLOUR = re.compile(rb"\x1b\[(?:3|4|9|10)\d(?:;\d+)*m")


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "tvmext", *map(str, arguments)]


def on_a_terminal(arguments: list[str], **environment: str) -> tuple[bytes, bytes]:
    """(stdout, stderr) of a command whose stderr is a terminal of 60 columns and stdout a pipe."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 60, 0, 0))
    inherited = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "COLUMNS")}
    process = subprocess.Popen(
        arguments,
        stdout=subprocess.PIPE,
        stderr=theirs,
        env=inherited | {"TERM": "xterm-256color"} | environment,
    )
    os.close(theirs)
    err = b""
    while True:
        try:
            data = os.read(ours, 1 << 16)
        except OSError:  # the other end is closed
            break
        if not data:
            break
        err += data
    os.close(ours)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 0, err
    return out, err


def test_json_and_progress_do_not_mix(tiny: Path, tmp_path: Path) -> None:
    arguments = command("compile", tiny, "-o", tmp_path / "a.so", "--json")
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=120)
    assert json.loads(done.stdout)["artifact"] == str(tmp_path / "a.so")
    steps = done.stderr.splitlines()
    assert len(steps) == len(set(steps)) > 2
    assert "\x1b" not in done.stderr + done.stdout


def test_progress_moves_on_a_terminal(tiny: Path, tmp_path: Path) -> None:
    arguments = command("compile", tiny, "-o", tmp_path / "a.so")
    out, err = on_a_terminal(arguments)
    assert b"\x1b" not in out
    assert STEP.search(err)
    assert COLOUR.search(err)
    assert b"\x1b[?25l" in err and err.rindex(b"\x1b[?25h") > err.rindex(b"\x1b[?25l")


def test_no_color_is_honoured(tiny: Path, tmp_path: Path) -> None:
    arguments = command("compile", tiny, "-o", tmp_path / "a.so")
    _, err = on_a_terminal(arguments, NO_COLOR="1")
    assert STEP.search(err)
    assert not COLOUR.search(err)


def test_a_pipe_gets_whole_lines(tmp_path: Path) -> None:
    """No cell is cut or wrapped, however long, whatever COLUMNS says."""
    name = "input_" + "x" * 300
    node = helper.make_node("Relu", [name], ["y"])
    path = tmp_path / "wide.onnx"
    path.write_bytes(networks.model([node], {name: [2]}, {"y": [2]}).SerializeToString())
    done = subprocess.run(
        command("inspect", path),
        capture_output=True,
        text=True,
        timeout=60,
        env=os.environ | {"COLUMNS": "40"},
    )
    assert re.search(rf"^input +{name} +float32 +\[2\]$", done.stdout, re.MULTILINE)


def test_what_an_option_does_not_do_is_a_warning(tiny: Path, tmp_path: Path) -> None:
    arguments = command("compile", tiny, "-o", tmp_path / "a.so", "--donate", "x", "--json")
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "\nwarning: donate: nothing updates input 'x' in place" in done.stderr
    assert json.loads(done.stdout)


@pytest.mark.parametrize("terminal", [True, False])
def test_a_line_rests_on_terminals_only(
    terminal: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal)
    with resting("measuring"):
        shown = capsys.readouterr().err
    assert shown == ("measuring ..." if terminal else "")
    assert capsys.readouterr().err == ("\r\033[K" if terminal else "")
