"""What is checked on a GPU before anything is timed: every schedule, every network, sanitizers."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
ON_GPU = "TVMEXT_TEST_GPU"
"""With this in the environment the tests of CUDA schedules use the GPU, not the emulator."""

_PYTEST = (sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider")
SANITIZER = "compute-sanitizer"
_FAULT = 99  # the exit code that the sanitizer is told to end with


@dataclass(frozen=True)
class Check:
    """A command that must end with 0; `needs` is a module or a program that has to be there."""

    name: str
    command: Sequence[str]
    needs: Sequence[str]
    limit: float


def checks() -> list[Check]:
    """In order: what is quick and tells most comes first."""
    schedules = (*_PYTEST, "tests/schedules/cuda")
    sanitize = (SANITIZER, f"--error-exitcode={_FAULT}", "--target-processes=all")
    return [
        Check("schedules against NumPy", schedules, ("pytest",), 1800),
        Check("zoo against ONNX Runtime", (*_PYTEST, "tests/gpu"), ("pytest", "onnxruntime"), 7200),
        *(
            Check(
                f"{tool} over the schedules", (*sanitize, f"--tool={tool}", *schedules), needs, 3600
            )
            for tool in ("memcheck", "racecheck", "synccheck")
            for needs in [("pytest", SANITIZER)]
        ),
    ]


def missing(check: Check) -> str:
    """What a check needs and is not installed, "" if nothing."""
    for name in check.needs:
        if not shutil.which(name) and importlib.util.find_spec(name.replace("-", "_")) is None:
            return name
    return ""


def run(check: Check) -> dict[str, Any]:
    """{"name", "result": "passed", "failed" or "skipped", "seconds", "detail"}."""
    if absent := missing(check):
        return _told(check, "skipped", 0.0, f"{absent} is not installed")
    began = time.monotonic()
    process = subprocess.Popen(
        check.command,
        cwd=ROOT,
        env=os.environ | {ON_GPU: "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        said, _ = process.communicate(timeout=check.limit)
    except subprocess.TimeoutExpired:
        return _told(check, "failed", check.limit, f"stopped after {check.limit:.0f} s")
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
    seconds = time.monotonic() - began
    if process.returncode == 0 and not _passed(said):
        return _told(check, "failed", seconds, "no test was run")
    result = "passed" if process.returncode == 0 else "failed"
    return _told(check, result, seconds, summary(said, process.returncode))


def _passed(said: str) -> bool:
    """Whether pytest ran anything; a run that skipped all of it checks nothing."""
    return re.search(r"\b[1-9]\d* passed", said) is not None


def summary(said: str, code: int) -> str:
    """pytest's last line and the tests that failed; of a sanitizer its first complaint."""
    lines = said.strip().splitlines()
    failed = [line for line in lines if line.startswith(("FAILED", "ERROR"))][:20]
    complaints = [line for line in lines if line.startswith("=========") and "COMPUTE" not in line]
    ends = [line for line in lines if re.search(r"\d+ (passed|failed|skipped|error)", line)][-1:]
    parts = [*ends, *failed, *(complaints[:3] if code else [])]
    return "; ".join(parts or lines[-1:])[:2000]


def _told(check: Check, result: str, seconds: float, detail: str) -> dict[str, Any]:
    return {"name": check.name, "result": result, "seconds": seconds, "detail": detail}
