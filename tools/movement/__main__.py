"""Movement in every network of the zoo, by TVM's passes and by ours, as a table.

    python -m tools.movement                               # all, with fixed sizes
    python -m tools.movement --dynamic --only 'swin*'      # some, with free sizes
    python -m tools.movement --only gpt2.legacy.dyn --kernels    # and each kernel that is left
    python -m tools.movement --resume --compile            # and both libraries of each, to be timed
    python -m tools.movement --time 120                    # some of those, in two minutes

Each network runs in a process of its own. Figures are those of `tvmext explain`: bytes that kernels
read and write, memory that is planned; a free dim counts with the size that the network is stored
with. --compile also makes a library with virtual tensors and one without, in --libraries; --time
lets them take turns, one thread, and leaves figures in their place, which the table takes in: so it
can have a machine for itself. What was too noisy can be timed again. The table (Markdown) goes to
stdout, the figures to --json, with the revision of each row. Exit code 1 if a network failed.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import sys
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from tvmext.measure.host import cpu_name

from ..bench.report import ratio_text
from ..zoo.case import MODES, wanted
from ..zoo.runner import Row, all_rows, revision, run_module

CASE = "tools.movement.case"
TIMES = "times.json"
SIDES = ("stock", "ours")
COLUMNS = (
    *("network", "dims", "movement operators"),
    *("kernels left: TVM", "ours", "forced", "priced", "no rule"),
    *("MB moved: TVM", "ours", "MB of all kernels: TVM", "ours"),
    *("MB planned: TVM", "ours", "change", "time without / with"),
)


def table(rows: Sequence[Row]) -> str:
    """The rows as a Markdown table, with totals below."""
    passed = [row for row in rows if row["exit_code"] == 0]
    lines = [
        f"| {' | '.join(COLUMNS)} |",
        f"|---|---|{'---:|' * (len(COLUMNS) - 2)}",
        *map(table_line, rows),
        "",
        summary(passed),
    ]
    return "\n".join(lines)


def table_line(row: Row) -> str:
    """One row; of a network that failed, why."""
    if row["exit_code"]:
        why = f"exit {row['exit_code']}: {row['error'][:110].replace('|', '/')}"
        return f"| {row['network']} | {row['mode']} | {why} |{' |' * (len(COLUMNS) - 3)}"
    sides = [row[side] for side in SIDES]
    reasons = Counter(kernel["reason"] for kernel in row["ours"]["movement_kernels_left"])
    cells = [
        row["network"],
        row["mode"],
        row["movement_operators"],
        *(len(side["movement_kernels_left"]) for side in sides),
        *(reasons[reason] for reason in ("forced", "priced", "no rule")),
        *(megabytes(side["bytes_moved"]) for side in sides),
        *(megabytes(side["kernel_bytes"]) for side in sides),
        *(megabytes(side["planned_bytes"]) for side in sides),
        change(*(side["planned_bytes"] for side in sides)),
        time_text(row),
    ]
    return f"| {' | '.join(map(str, cells))} |"


def time_text(row: Row) -> str:
    """Time without over time with virtual tensors; a ~ where it was too noisy for quartiles."""
    found = row.get("ratios", {}).get("off", {})
    return f"~{speedup(row):.2f}" if "noisy" in found else ratio_text(found)


def speedup(row: Row) -> float:
    """The median ratio of undisturbed rounds; of all of them where those are too few."""
    found = row["ratios"]["off"]
    return float(found["value"] if "value" in found else row["all_rounds"])


def summary(rows: Iterable[Row]) -> str:
    """Totals over networks, and means of what is relative."""
    rows = list(rows)
    left = [sum(len(row[side]["movement_kernels_left"]) for row in rows) for side in SIDES]
    planned = [
        row["ours"]["planned_bytes"] / row["stock"]["planned_bytes"]
        for row in rows
        if row["stock"]["planned_bytes"]
    ]
    above = sum(share > 1 for share in planned)
    operators = sum(row["movement_operators"] for row in rows)
    text = (
        f"{len(rows)} networks: {operators} movement operators; "
        f"kernels left: TVM {left[0]}, ours {left[1]}"
    )
    if planned:
        mean = change(1, statistics.mean(planned))
        text += f"; planned memory against TVM's: mean {mean}, above it in {above}"
    if ratios := [speedup(row) for row in rows if "ratios" in row]:
        text += (
            f"; time without / with virtual tensors: geometric mean "
            f"{statistics.geometric_mean(ratios):.2f}, {min(ratios):.2f} to {max(ratios):.2f}"
        )
    return f"{text}."


def megabytes(count: int) -> str:
    """Three digits of a number of bytes, in millions."""
    return f"{count / 1e6:.3g}" if count < 999e6 else f"{count / 1e6:.0f}"


def change(theirs: float, mine: float) -> str:
    """``-12 %``."""
    return f"{100 * (mine - theirs) / theirs:+.0f} %" if theirs else ""


def row_of(network: str, mode: str, args: argparse.Namespace) -> Row:
    """The figures of one network, or why there are none."""
    case = [network, mode]
    row = run_module([CASE, "explain", *case], args.timeout)
    if args.compile and row["exit_code"] == 0:
        folder = args.libraries.absolute() / ".".join(case)
        shutil.rmtree(folder, ignore_errors=True)
        row |= run_module([CASE, "compile", *case, "--folder", str(folder)], args.timeout)
    return {"network": network, "mode": mode, "revision": revision()} | row


def time_some(cases: Sequence[tuple[str, str]], args: argparse.Namespace) -> None:
    """Time libraries that wait, as long as --time lasts; the figures take their place."""
    started = time.monotonic()
    for case in cases:
        folder = args.libraries.absolute() / ".".join(case)
        left = args.time - (time.monotonic() - started)
        if left < args.seconds or not all(
            (folder / f"{side}.so").exists() for side in ("on", "off")
        ):
            continue
        options = ["--folder", str(folder), "--seconds", str(args.seconds)]
        found = run_module([CASE, "time", *case, *options], left)
        print(f"{' '.join(case)}: {found.get('ratios', found)}", file=sys.stderr)
        if found["exit_code"] == 0:
            (folder / TIMES).write_text(json.dumps(found))
        if "value" in found.get("ratios", {}).get("off", {}):
            for library in folder.glob("*.so"):
                library.unlink()


def with_time(row: Row, args: argparse.Namespace) -> Row:
    """A row with what was timed of the libraries that were compiled for it."""
    times = args.libraries / f"{row['network']}.{row['mode']}" / TIMES
    return row | json.loads(times.read_text()) if times.exists() else row


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tools.movement",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--only", default="*", metavar="PATTERN", help="networks, as 'bert*'")
    parser.add_argument("--static", action="store_true", help="with all dims bound (the default)")
    parser.add_argument("--dynamic", action="store_true", help="with all dims free")
    parser.add_argument("--kernels", action="store_true", help="list the kernels that are left")
    parser.add_argument("--compile", action="store_true", help="make libraries to be timed")
    parser.add_argument(
        "--time", type=float, metavar="SECONDS", help="time libraries, for as long as this"
    )
    parser.add_argument("--seconds", type=float, default=10, help="to time one network for")
    parser.add_argument("--libraries", type=Path, default=Path("build/movement"), metavar="FOLDER")
    parser.add_argument("--timeout", type=float, default=600, metavar="SECONDS")
    parser.add_argument(
        "--resume", action="store_true", help="keep the rows of --json, add the rest"
    )
    parser.add_argument("--json", type=Path, default=Path("build/movement.json"), metavar="FILE")
    return parser.parse_args(arguments)


def main() -> int:
    """Run what the command line asks for."""
    args = parse()
    only = [mode for mode in MODES if getattr(args, mode)] or ["static"]
    cases = wanted(args.only, only)
    if args.time:
        time_some(cases, args)
        return 0
    rows = all_rows(cases, args.json, args.resume, lambda *case: row_of(*case, args))
    rows = [with_time(row, args) for row in rows]
    revisions = sorted({row.get("revision", "unknown") for row in rows})
    print(f"{cpu_name()}; revision {' and '.join(revisions)}; MB are millions of bytes.\n")
    print(table(rows))
    for row in rows if args.kernels else ():
        print(f"\n{row['network']} {row['mode']}:")
        for kernel in row.get("ours", {}).get("movement_kernels_left", ()):
            print(
                f"- {kernel['kernel']} ({kernel['bytes']}, {kernel['reason']}): {kernel['detail']}"
            )
    return 0 if all(row["exit_code"] == 0 for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
