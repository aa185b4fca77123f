"""What became worse since the last good commit: correctness, speed, memory, size, compile time.

    python -m tools.nightly --history ~/nights                   # all, in under an hour
    python -m tools.nightly --history ~/nights --quick           # a few cases, in minutes
    python -m tools.nightly --history ~/nights --since v0.1.0    # bisect what became worse since
    python -m tools.nightly --history ~/nights --report          # the pages again

Every case is compiled by this checkout and by that of the last good commit (--base), compared with
ONNX Runtime, and timed in turns with both. The folder --history keeps all nights (nightly.sqlite),
and gets report.md and index.html. Exit codes: 0 nothing became worse, 1 something did or fails, 2 a
mistake in the call, 130 and 143 an interruption.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from . import commits, night
from .cases import chosen
from .dashboard import dashboard
from .history import GOOD, History
from .summary import summary

QUICK_MINUTES, MINUTES = 10.0, 55.0


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tools.nightly",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--history", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--base", default="", metavar="COMMIT", help="instead of the last good one")
    parser.add_argument(
        "--since", default="", metavar="COMMIT", help="as --base, and bisect what became worse"
    )
    parser.add_argument("--bisect", action="store_true", help="bisect what became worse")
    parser.add_argument("--minutes", type=float, help=f"that it may take (default: {MINUTES:g})")
    parser.add_argument("--quick", action="store_true", help="a few small cases")
    parser.add_argument(
        "--only", action="append", default=[], metavar="PATTERN", help="cases, as 'ops/gemm/*'"
    )
    parser.add_argument("--parts", default=",".join(night.PARTS), help="some of %(default)s")
    parser.add_argument("--shard", default="0/1", help="of ONNX's tests (tools.conformance)")
    parser.add_argument(
        "--tests", action="append", default=[], metavar="GLOB", help="some of ONNX's tests"
    )
    parser.add_argument("--seconds", type=float, default=4.0, help="for one comparison, at most")
    parser.add_argument("--limit", type=float, default=300, help="seconds for one process")
    parser.add_argument("--under", default="", metavar="COMMAND", help="run what is timed under it")
    parser.add_argument("--list", action="store_true", help="print the names of the cases")
    parser.add_argument("--report", action="store_true", help="write the pages again")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Spend a night; 0 if nothing became worse."""
    args = parse(arguments)
    targets = night.targets()
    cases = chosen(args.only, targets, args.quick)
    parts = [part for part in args.parts.split(",") if part]
    if args.list:
        print(*(case.name for case in cases), sep="\n")
        return 0
    if unknown := set(parts) - set(night.PARTS):
        return mistake(f"no part is called {', '.join(sorted(unknown))}", ", ".join(night.PARTS))
    if not cases and "cases" in parts:
        return mistake("no case matches", "--list names them")
    history, device = History(args.history), night.device(targets)
    if args.report:
        return report(history, device, args.history)
    try:
        base = night.planned_base(args.since or args.base, history, device, commits.ROOT)
    except commits.UnknownCommit as error:
        return mistake(f"no commit {args.since or args.base} in this clone", str(error))
    plan = night.Plan(
        root=commits.ROOT,
        base=base,
        bisect=bool(args.since or args.bisect),
        minutes=args.minutes or (QUICK_MINUTES if args.quick else MINUTES),
        cases=cases,
        parts=[part for part in parts if part == "cases" or not args.quick],
        shard=args.shard,
        tests=args.tests,
        seconds=args.seconds,
        limit=args.limit,
        under=args.under,
    )
    try:
        night.spend(plan, history, device)
    except commits.Interrupted:
        print("interrupted; the history keeps what was measured", file=sys.stderr)
        raise
    return report(history, device, args.history)


def report(history: History, device: str, folder: Path) -> int:
    """Write both pages, print one; 1 if the last night was bad."""
    runs = history.runs(device)
    if not runs:
        return mistake(f"no night of {device} in {folder}", "run without --report")
    text = summary(history, device)
    (folder / "report.md").write_text(text, encoding="utf-8")
    (folder / "index.html").write_text(dashboard(history, device), encoding="utf-8")
    print(text)
    return int(runs[-1][1].verdict != GOOD)


def mistake(what: str, hint: str) -> int:
    """Say what is wrong with the call, and what to try."""
    print(f"error: {what}\n  try: {hint}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
