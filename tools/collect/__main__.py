"""The command line: ``python -m tools.collect build | measure | pack``."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tvmext.arch import resolve

from ..bench.workers import HUGE_PAGES

if TYPE_CHECKING:
    from tvmext.measure.turns import Device


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tools.collect", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_build(commands)
    _add_measure(commands)
    _add_pack(commands)
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; 0 unless it could do nothing."""
    args = parse(arguments)
    return int(args.run(args))


def _add_build(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser("build", help="workloads are drawn, and candidates compiled")
    parser.add_argument("folder", type=Path, help="for libraries and their descriptions")
    parser.add_argument("--count", type=int, default=100, help="workloads")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kinds", default="", help="of workloads, as 'thin,softmax'; default: all")
    parser.add_argument("--target", default="llvm", help="such as sm_90a; default: this machine")
    parser.add_argument(
        "--cores", type=_counts, default=[1], help="that kernels may use; of several one is drawn"
    )
    parser.add_argument("--most", type=int, default=14, help="candidates of a kernel")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="then stop")
    parser.add_argument("--scheduler", help="address of a Dask scheduler; else in this process")
    parser.set_defaults(run=_build)


def _counts(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


def _build(args: argparse.Namespace) -> int:
    from .build import build, digest
    from .workloads import draw, key

    arch = resolve(f"cuda -arch={args.target}" if args.target[:3] == "sm_" else args.target)
    options = {"most": args.most, "seed": args.seed, "cores": args.cores}
    args.folder.mkdir(parents=True, exist_ok=True)
    end = time.monotonic() + args.seconds
    try:
        drawn = draw(args.count, args.seed, args.kinds.split(",") if args.kinds else ())
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    specs = [s for s in drawn if not (args.folder / f"{digest(key(s))}.json").exists()]
    if args.scheduler:
        from distributed import Client

        from .cluster import build_all

        with Client(args.scheduler) as client:
            for name in build_all(client, specs, arch, args.folder, **options):
                print(name, flush=True)
        return 0
    for spec in specs:
        if time.monotonic() > end:
            break
        try:
            unit = build(spec, arch, args.folder, **options)
        except Exception as error:  # the others go on
            print(f"failed: {key(spec)}: {type(error).__name__} {error}", file=sys.stderr)
            continue
        print(f"{unit.name}: {len(unit.items)} candidates of {spec['kind']}", flush=True)
    return 0


def _add_measure(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser("measure", help="what was built, and is not in the data set yet")
    parser.add_argument("folder", type=Path, help="of `build`")
    parser.add_argument("--data", type=Path, required=True, help="folder of the data set")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=float("inf"), help="then stop")
    parser.add_argument("--scheduler", help="address of a Dask scheduler; else in this process")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--rpc", metavar="HOST:PORT/KEY", help="a device of a TVM RPC tracker")
    parser.set_defaults(run=_measure)


def _measure(args: argparse.Namespace) -> int:
    from .journal import Journal
    from .measure import collect

    journal = Journal(args.data)
    if args.scheduler:
        from distributed import Client

        from .cluster import measure_all

        with Client(args.scheduler) as client:
            count = measure_all(client, args.folder, journal, args.threads)
    else:
        count = collect(args.folder, journal, _device(args), seconds=args.seconds)
    print(f"{count} candidates measured; {len(journal.keys())} in {args.data}")
    return 0


def _device(args: argparse.Namespace) -> Device:
    from tvmext.measure.turns import Local

    from .measure import Remote

    if args.device == "cuda":
        from .gpu import Cuda

        return Cuda()
    return Remote(args.rpc) if args.rpc else Local(args.threads)


def _add_pack(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser("pack", help="the journal becomes a Parquet file")
    parser.add_argument("data", type=Path, nargs="+", help="folders, one for each session")
    parser.add_argument("-o", "--output", type=Path, help="one file of everything instead")
    parser.set_defaults(run=_pack)


def _pack(args: argparse.Namespace) -> int:
    from .journal import Journal, joined, latest, write

    journals = [Journal(folder) for folder in args.data]
    if args.output is None:
        print(f"{sum(journal.pack() for journal in journals)} measurements")
        return 0
    rows = joined(latest(journal.rows()) for journal in journals)
    if rows:
        write(rows, args.output)
    print(f"{len(rows)} measurements")
    return 0


if __name__ == "__main__":
    if "GLIBC_TUNABLES" not in os.environ:  # malloc reads it when a process begins
        os.execve(sys.executable, sys.orig_argv, {**os.environ, **HUGE_PAGES})
    sys.exit(main())
