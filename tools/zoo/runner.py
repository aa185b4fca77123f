"""A network in a process of its own: what goes wrong there, a crash included, is a row."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from tvmext.measure.host import cpu_name

ROOT = Path(__file__).resolve().parents[2]
Row = dict[str, Any]
"""The figures of one network in one mode, or "exit_code" and "error"."""

PATIENCE = 10
"""Seconds that a process has to stop what it started."""


def run_case(
    network: str, mode: str, limit: float, threads: int = 1, options: Sequence[str] = ()
) -> Row:
    """One row: the figures of `case.measure`, or "exit_code" and "error".

    `options` are those of the command line of `case`.
    """
    command = [f"{__package__}.case", network, mode, *options]
    return {"network": network, "mode": mode} | run_module(command, limit, threads)


def run_module(
    command: Sequence[str], limit: float, threads: int = 1, under: Sequence[str] = ()
) -> Row:
    """What ``python -m command`` prints as JSON, with its "exit_code", or that and "error".

    `under` is a command that runs it.
    """
    return finished(start_module(command, threads, under), limit)


def start_module(
    command: Sequence[str], threads: int = 1, under: Sequence[str] = ()
) -> subprocess.Popen[str]:
    """The process of `run_module`, for `finished` to wait for."""
    return subprocess.Popen(
        [*under, sys.executable, "-m", *command],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"TVM_NUM_THREADS": str(threads), "OMP_NUM_THREADS": str(threads)},
        start_new_session=True,
    )


def answer(make: Callable[[], Row]) -> int:
    """The other side of `run_module`: print what `make` gives as JSON; the exit code.

    That is 0, 1 for a row whose "passed" is false, or that of an error of tvmext, told on stderr.
    """
    from tvmext.errors import TvmextError

    try:
        row = make()
    except TvmextError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    print(json.dumps(row))
    return 0 if row.get("passed", True) else 1


def finished(process: subprocess.Popen[str], limit: float) -> Row:
    """The row of a process that prints JSON and leads a session of its own.

    After `limit` seconds, and if the caller is interrupted, the whole session is killed.
    """
    try:
        out, err = process.communicate(timeout=limit)
    except subprocess.TimeoutExpired:
        return {"exit_code": 124, "error": f"stopped after {limit:.0f} s"}
    finally:
        end(process)
    row: Row = {"exit_code": process.returncode}
    if out.strip().startswith("{"):
        return row | json.loads(out.strip().splitlines()[-1])
    return row | {"error": first_line(err) or f"ended with {process.returncode}"}


def end(process: subprocess.Popen[str]) -> None:
    """Stop a process that leads a session of its own, and all of that, if it still runs.

    It may stop first what it started in other sessions.
    """
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            process.communicate(timeout=PATIENCE)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def all_rows(
    cases: Sequence[tuple[str, str]], file: Path, resume: bool, run: Callable[[str, str], Row]
) -> list[Row]:
    """A row for each (network, mode), written to `file` one by one; stderr tells how it goes.

    With `resume`, rows that the file has already are kept.
    """
    rows: dict[tuple[str, str], Row] = {}
    if resume and file.exists():
        old = json.loads(file.read_text())["rows"]
        rows = {(row["network"], row["mode"]): row for row in old}
    file.parent.mkdir(parents=True, exist_ok=True)
    for number, (network, mode) in enumerate(cases, 1):
        if (network, mode) not in rows:
            print(f"[{number}/{len(cases)}] {network} {mode}", end=" ", file=sys.stderr, flush=True)
            started = time.monotonic()
            row = rows[network, mode] = run(network, mode)
            said = row.get("error") or row.get("detail") or "passed"
            print(f"{time.monotonic() - started:.0f} s: {said[:200]}", file=sys.stderr)
            file.write_text(
                json.dumps({"machine": cpu_name(), "rows": list(rows.values())}, indent=1)
            )
    return [rows[case] for case in cases]


def revision() -> str:
    """The commit of this checkout, "-dirty" behind it if files differ from that."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=7", "--exclude=*"]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    return found.stdout.strip() or "unknown"


def first_line(text: str) -> str:
    """What a person would quote of an error: its first line, or the last of a Python stack.

    A line that ends with a colon needs the next one.
    """
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if any(line.startswith("Traceback ") for line in lines):
        return lines[-1]
    count = 2 if lines and lines[0].endswith(":") else 1
    return " ".join(lines[:count])
