"""All that a GPU host does, one after the other; each part is written down before the next begins.

python -m tools.gpu all                      # checks, benchmarks, the report
python -m tools.gpu all --only 'gemm*' --no-checks
"""

from __future__ import annotations

import argparse
import fnmatch
import json
import re
import sys
from collections.abc import Callable, Sequence
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from . import bench, report
from .checks import Check, checks
from .checks import run as run_check
from .device import Device, Gpu

PACKAGES = (
    "apache-tvm",
    "apache-tvm-ffi",
    "torch",
    "triton",
    "onnxruntime",
    "cuda-bindings",
    "nvidia-cuda-nvrtc",
    "nvidia-cublas",
    "nvidia-cudnn-cu13",
    "numpy",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    bench.add_arguments(parser)
    parser.add_argument("--no-checks", action="store_true", help="only the benchmarks")
    parser.add_argument("--checks", default="*", metavar="PATTERN", help="as 'schedules*'")
    parser.add_argument("--no-bench", action="store_true", help="only the checks")


def main(args: argparse.Namespace) -> int:
    """Everything on the GPU of this machine; 0 if all checks passed and ours was timed everywhere.

    Exit code 2 if there is no GPU.
    """
    from tvmext.errors import TvmextError

    try:
        device = Gpu()
    except (TvmextError, OSError, ImportError) as error:
        print(f"there is no GPU to use: {error}", file=sys.stderr)
        return 2
    machine = described(device)
    del device  # its memory is the workers'
    wanted = [one for one in checks() if fnmatch.fnmatch(one.name, args.checks)]
    return everything(args, machine, [] if args.no_checks else wanted)


def everything(
    args: argparse.Namespace,
    machine: dict[str, Any],
    wanted: Sequence[Check],
    *,
    folder: Path = report.RESULTS,
    start: bench.Start | None = None,
    check: Callable[[Check], dict[str, Any]] = run_check,
) -> int:
    """Run and write ``folder/DATE-DEVICE.json``; `start` and `check` run a process."""
    now = datetime.now(timezone.utc)
    results: dict[str, Any] = {
        "date": now.isoformat(timespec="seconds"),
        "machine": machine,
        "checks": [],
        "bench": [],
    }
    file = folder / f"{now:%Y-%m-%d-%H%M}-{_slug(machine['device'])}.json"

    def write() -> None:
        folder.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(results, indent=1) + "\n")

    for one in wanted:
        print(f"{one.name} ...", file=sys.stderr, flush=True)
        results["checks"].append(check(one))
        write()
    if not args.no_bench:
        names = [case.name for case in bench.wanted(args.only)]
        settings = {"against": args.against or "", "seconds": args.seconds}
        lines = args.output / "bench.jsonl"
        results["bench"] = bench.run(
            names, lines, settings, args.limit, resume=args.resume, start=start
        )
    write()
    print(report.text(results))
    print(f"written to {file}", file=sys.stderr)
    good = all(one["result"] != "failed" for one in results["checks"])
    return 0 if good and all("tvmext" in row.get("sides", {}) for row in results["bench"]) else 1


def described(device: Device) -> dict[str, Any]:
    """The device and the versions of all that takes part."""
    return {**device.describe(), "versions": versions()}


def versions() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:  # noqa: PERF203
            continue
    return found


def _slug(device: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", device.lower()).strip("-")
