"""Cases are made one ahead of the one that is timed."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from tools.nightly import ahead, commits, sides
from tools.nightly.ahead import Ahead
from tools.nightly.cases import Case


def test_the_next_case_is_made_while_one_is_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not on a machine of one core; a folder goes with its case, whatever it was doing."""
    first, second = Case("ops", "gelu/1x3072"), Case("ops", "softmax/1x1000")
    started = []

    def start(command: list[str]) -> subprocess.Popen[str]:
        started.append(json.loads(command[1]))
        script = "import time; print('{}', flush=True); time.sleep(60)"
        if len(started) == 1:
            script = "print('{\"ours\": 1}')"
        pipe = subprocess.PIPE
        return subprocess.Popen(
            [sys.executable, "-c", script],
            stdout=pipe,
            stderr=pipe,
            text=True,
            start_new_session=True,
        )

    monkeypatch.setattr(ahead, "start_module", start)
    settings = sides.Settings(commits.ROOT, None, 0.0, 100.0, core=1)
    with Ahead(settings) as two:
        made = two.take(first, second)
        assert made.row == {"exit_code": 0, "ours": 1}
        assert [each["case"]["model"] for each in started] == [first.model, second.model]
        folders = [Path(each["folder"]) for each in started]
        two.close(first.name)
        assert [folder.exists() for folder in folders] == [False, True]
    assert not folders[1].exists()
    started.clear()
    with Ahead(replace(settings, core=None)) as one:
        one.take(first, second)
    assert len(started) == 1
