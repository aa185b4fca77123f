"""Benchmarks on the GPU of this machine, in processes that may crash; rows as JSON lines.

python -m tools.gpu bench --only 'gemm*' --against torch,tvm
"""

from __future__ import annotations

import argparse
import fnmatch
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from .cases import Case, cases
from .device import Device, Gpu
from .inputs import problem
from .measure import Row, measured
from .networks import NetworkCase, network_cases, network_problem
from .sides import SIDES, Build, installed

ROOT = Path(__file__).resolve().parents[2]
CHUNK = 40
"""Cases that share a process, whose start (torch, TVM) takes seconds."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--only", default="*", metavar="PATTERN", help="cases, as 'gemm*-float16'")
    parser.add_argument("--against", metavar="NAME,...", help=f"of {', '.join(SIDES)}")
    parser.add_argument("--seconds", type=float, default=1.0, help="of samples, per case")
    parser.add_argument("--limit", type=float, default=900, help="seconds for a case and its sides")
    parser.add_argument("--resume", action="store_true", help="keep the rows that are there")
    parser.add_argument("--output", type=Path, default=Path("build/gpu"), metavar="FOLDER")


def main(args: argparse.Namespace) -> int:
    """Time what the command line asks for; 0 if every case has a row of ours."""
    file = args.output / "bench.jsonl"
    names = [case.name for case in wanted(args.only)]
    settings = {"against": args.against or "", "seconds": args.seconds}
    rows = run(names, file, settings, args.limit, resume=args.resume)
    failed = [row for row in rows if "tvmext" not in row.get("sides", {})]
    for row in failed:
        why = row.get("error") or row.get("failed", {}).get("tvmext", "")
        print(f"{row['case']}: {why}", file=sys.stderr)
    return 1 if failed else 0


def wanted(pattern: str) -> list[Case | NetworkCase]:
    """The cases that a pattern names."""
    every = [*cases(), *network_cases()]
    return [case for case in every if fnmatch.fnmatch(case.name, pattern)]


Start = Callable[[Sequence[str], Path, Mapping[str, Any], float], int]


def run(
    names: Sequence[str],
    file: Path,
    settings: Mapping[str, Any],
    limit: float,
    *,
    resume: bool = False,
    start: Start | None = None,
) -> list[Row]:
    """A row for each case, from processes that take the rest of a chunk until one of them crashes.

    A case during which its process ended has the row {"case", "error"}. `start` runs a process.
    """
    start = start or _process
    file.parent.mkdir(parents=True, exist_ok=True)
    if not resume:
        file.unlink(missing_ok=True)
    done = {row["case"]: row for row in read(file)}
    rest = [name for name in names if name not in done]
    while rest:
        chunk = rest[:CHUNK]
        code = start(chunk, file, settings, limit)
        done = {row["case"]: row for row in read(file)}
        if missing := [name for name in chunk if name not in done]:
            culprit = {"case": missing[0], "error": f"its process ended with {code}"}
            done[missing[0]] = culprit
            append(file, culprit)
        rest = [name for name in rest if name not in done]
    return [done[name] for name in names]


def read(file: Path) -> Iterator[Row]:
    """The rows of a file; a line that a crash cut short is none."""
    if not file.exists():
        return
    for line in file.read_text().splitlines():
        with suppress(ValueError):
            yield json.loads(line)


def append(file: Path, row: Row) -> None:
    """Add a row, on the disk before the next case begins."""
    whole = not file.exists() or file.read_bytes()[-1:] in (b"", b"\n")
    with file.open("a") as stream:
        stream.write(("" if whole else "\n") + json.dumps(row) + "\n")
        stream.flush()


def _process(names: Sequence[str], file: Path, settings: Mapping[str, Any], limit: float) -> int:
    command = [sys.executable, "-m", "tools.gpu.bench", json.dumps([*names]), str(file)]
    process = subprocess.Popen(
        [*command, json.dumps(dict(settings))], cwd=ROOT, start_new_session=True
    )
    began = time.time()
    try:
        while process.poll() is None:
            time.sleep(1)
            written = file.stat().st_mtime if file.exists() else 0.0
            if time.time() - max(began, written) > limit:
                return 124
        return process.returncode
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def work(names: Iterable[str], file: Path, settings: Mapping[str, Any], device: Device) -> None:
    """Measure the cases in this process and append their rows."""
    known = {case.name: case for case in (*cases(), *network_cases())}
    sides = chosen(settings["against"])
    for name in names:
        case = known[name]
        row: Row = {"case": name, "family": case.family, "dtype": case.dtype}
        if isinstance(case, NetworkCase):
            with network_problem(case) as solved:
                row |= measured(solved, device, sides, seconds=settings["seconds"])
        else:
            least = device.limits.seconds(case.flops, case.bytes, case.dtype)
            row |= {"flops": case.flops, "bytes": case.bytes, "roofline_us": least * 1e6}
            row |= measured(problem(case), device, sides, seconds=settings["seconds"])
        append(file, row)
        print(f"{name}: {told(row)}", file=sys.stderr, flush=True)
        if row["failed"] and not device.alive():
            sys.exit("the GPU takes no more work from this process; the next goes on")


def chosen(against: str) -> dict[str, Build]:
    """Ours and the sides that are named, or all that are installed."""
    here = installed(SIDES)
    names = against.split(",") if against else list(here)
    return {name: build for name, build in here.items() if name == "tvmext" or name in names}


def told(row: Row) -> str:
    sides = row.get("sides", {})
    times = [f"{name} {side['median_us']:.1f} us" for name, side in sides.items()]
    others = [f"{name} {why}" for why in ("failed", "missing") for name in row.get(why, {})]
    return ", ".join([*times, *others])


if __name__ == "__main__":
    work(json.loads(sys.argv[1]), Path(sys.argv[2]), json.loads(sys.argv[3]), Gpu())
