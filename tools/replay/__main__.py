"""What a change does to decisions and generated code: nothing, for a refactoring.

    python -m tools.replay main                          # this checkout against main
    python -m tools.replay v0.1.0 main --only '*bert*'   # two commits
    python -m tools.replay main --target "cuda -arch=sm_90a" --keep build/replay

Each network is compiled by both, at fixed sizes unless --dynamic, and the scheduled kernels (TIR
under names that do not depend on their order), their decisions and the program that calls them are
compared. Exit codes: 0 all the same, 1 something differs or does not compile, 2 a mistake.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Sequence
from dataclasses import replace
from fnmatch import fnmatch
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory

from ..nightly import commits
from ..nightly.cases import Case, every_case
from ..nightly.sides import Settings, drawn, request
from . import snapshot

SIDES = ("before", "after")


def compared(case: Case, roots: Sequence[Path], args: argparse.Namespace) -> list[str]:
    """What differs between the two checkouts, line by line; a failure is a difference, too."""
    settings = Settings(roots[1], roots[0], 0.0, args.timeout)
    with TemporaryDirectory(prefix="tvmext-replay-") as made:
        folder = Path(made)
        row = drawn(case, folder, args.timeout)
        if row["exit_code"]:
            return [f"cannot be drawn: {row.get('error')}"]
        wanted = []
        for side, root in zip(SIDES, roots):
            asked = request(case, folder, side, settings)
            asked.pop("explain", None)
            wanted.append((root, {**asked, "dump": str(folder / side)}))
        rows = commits.builds(wanted, args.timeout)
        if errors := [f"{s}: {r['error']}" for s, r in zip(SIDES, rows) if r["exit_code"]]:
            return errors
        if args.keep:
            keep(case, folder, args.keep)
        found = [snapshot.read(folder / side, folder / f"{side}.so") for side in SIDES]
    lines = list(islice(snapshot.differences(*found), args.lines + 1))
    if len(lines) > args.lines:
        lines[-1] = "..."
    rules = snapshot.decided(*found)
    told = (
        [f"kernels by rule: {', '.join(f'{r} {n:+}' for r, n in rules.items())}"] if rules else []
    )
    return told + lines


def keep(case: Case, folder: Path, target: Path) -> None:
    """Copy the dumps, for other tools."""
    place = target / case.name.replace("/", "_").replace(" ", "_")
    place.mkdir(parents=True, exist_ok=True)
    for file in folder.glob("*.py"):
        shutil.copy(file, place)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tools.replay",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("before", metavar="COMMIT")
    parser.add_argument("after", nargs="?", metavar="COMMIT", help="default: this checkout")
    parser.add_argument(
        "--only", action="append", default=[], metavar="PATTERN", help="cases, as 'zoo/bert*'"
    )
    parser.add_argument("--ops", action="store_true", help="the bench's operators, too")
    parser.add_argument("--dynamic", action="store_true", help="with free sizes, too")
    parser.add_argument("--target", default="llvm", help="of both sides (default: this machine)")
    parser.add_argument("--lines", type=int, default=60, help="of a difference that are shown")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="keep the dumped code here")
    parser.add_argument("--timeout", type=float, default=300, metavar="SECONDS")
    return parser.parse_args(arguments)


def chosen(args: argparse.Namespace) -> list[Case]:
    """The cases of a command line."""
    found = [
        replace(case, target=args.target)
        for case in every_case()
        if (case.part == "zoo" or args.ops) and (case.mode == "static" or args.dynamic)
    ]
    return [c for c in found if not args.only or any(fnmatch(c.name, one) for one in args.only)]


def main(arguments: Sequence[str] | None = None) -> int:
    """0 if both sides make the same code."""
    args = parse(arguments)
    cases = chosen(args)
    if not cases:
        print("error: no case matches\n  try: --ops, or --only 'zoo/*'", file=sys.stderr)
        return 2
    differ = 0
    try:
        with commits.checkouts() as others:
            before = others.of(commits.commit_of(args.before))
            after = others.of(commits.commit_of(args.after)) if args.after else commits.ROOT
            for case in cases:
                lines = compared(case, (before, after), args)
                differ += bool(lines)
                print(f"{case.name}: {'differs' if lines else 'the same'}", flush=True)
                for line in lines:
                    print(f"  {line}")
    except commits.UnknownCommit as error:
        print(f"error: no such commit: {error}\n  try: git log", file=sys.stderr)
        return 2
    print(f"{len(cases) - differ} of {len(cases)} the same")
    return int(differ > 0)


if __name__ == "__main__":
    sys.exit(main())
