"""A network in a process of its own: what goes wrong there, a crash included, is a row."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
Row = dict[str, Any]
"""The figures of one network in one mode, or "exit_code" and "error"."""


def run_case(
    network: str, mode: str, limit: float, threads: int = 1, options: Sequence[str] = ()
) -> Row:
    """One row: the figures of `case.measure`, or "exit_code" and "error".

    `options` are those of the command line of `case`.
    """
    command = [sys.executable, "-m", f"{__package__}.case", network, mode, *options]
    row: Row = {"network": network, "mode": mode}
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"TVM_NUM_THREADS": str(threads), "OMP_NUM_THREADS": str(threads)},
        start_new_session=True,
    )
    try:
        out, err = process.communicate(timeout=limit)
    except subprocess.TimeoutExpired:
        return row | {"exit_code": 124, "error": f"stopped after {limit:.0f} s"}
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
    row |= {"exit_code": process.returncode}
    if out.strip().startswith("{"):
        return row | json.loads(out.strip().splitlines()[-1])
    return row | {"error": first_line(err) or f"ended with {process.returncode}"}


def first_line(text: str) -> str:
    """What a person would quote of an error: its first line, or the last of a Python stack.

    A line that ends with a colon needs the next one.
    """
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if any(line.startswith("Traceback ") for line in lines):
        return lines[-1]
    count = 2 if lines and lines[0].endswith(":") else 1
    return " ".join(lines[:count])
