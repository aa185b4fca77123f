"""Compile and verify every network of the zoo, time it against ONNX Runtime, print the table.

    python -m tools.zoo                           # all, static and dynamic, with latency
    python -m tools.zoo --static --only 'bert*'   # some
    python -m tools.zoo --resume                  # go on where it was interrupted

Each network runs in a process of its own, under a time limit. What fails is a row with its exit
code and the first line of its error. The table (Markdown) goes to stdout, the figures to --json.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Iterable
from pathlib import Path

from ..bench.host import cpu_name
from ..bench.report import ratio_text
from .case import MODES, wanted
from .runner import Row, all_rows, run_case


def table(rows: Iterable[Row]) -> str:
    """The rows as a Markdown table, and a summary below it."""
    rows = list(rows)
    lines = [
        "| network | dims | result | max abs | compile s | .so MB | compiler MB "
        "| tvmext ms | ONNX Runtime ms | ratio |",
        "|---|---|---|---:|---:|---:|---:|---:|---:|---:|",
        *map(table_line, rows),
        "",
    ]
    by_mode = {m: [row for row in rows if row["mode"] == m] for m in MODES}
    lines += [f"- {mode}: {summary(chosen)}" for mode, chosen in by_mode.items() if chosen]
    return "\n".join(lines)


def summary(rows: Iterable[Row]) -> str:
    """How many rows passed, and the geometric mean and the ends of their ratios."""
    rows = list(rows)
    passed = [row for row in rows if row["exit_code"] == 0]
    text = f"{len(passed)} of {len(rows)} pass"
    found = [row["ratios"]["onnxruntime"] for row in passed if "ratios" in row]
    if ratios := [ratio["value"] for ratio in found if "value" in ratio]:
        text += (
            "; time of ONNX Runtime / tvmext: geometric mean "
            f"{statistics.geometric_mean(ratios):.2f}, {min(ratios):.2f} to {max(ratios):.2f}"
        )
    if noisy := sum("noisy" in ratio for ratio in found):
        text += f"; no ratio for {noisy}, which were disturbed"
    return text


def table_line(row: Row) -> str:
    """One row of the Markdown table; minimum / median for the latencies."""
    result = "passed" if row["exit_code"] == 0 else f"exit {row['exit_code']}"
    if detail := row.get("error") or row.get("detail"):
        result += f": {detail.replace('|', '/')[:110]}"
    cells = [row["network"], row["mode"], result]
    if "seconds" in row:
        cells += [f"{row['max_abs']:.1e}", f"{row['seconds']:.1f}"]
        cells += [f"{row['bytes'] / 1e6:.1f}", f"{row['compiler_rss'] / 1e6:.0f}"]
    else:
        cells += [""] * 4
    sides = row.get("sides", {})
    cells += [milliseconds(sides.get(name)) for name in ("tvmext", "onnxruntime")]
    cells.append(ratio_text(row.get("ratios", {}).get("onnxruntime", {})))
    return f"| {' | '.join(cells)} |"


def milliseconds(side: Row | None) -> str:
    """``minimum / median``, with a question mark where the machine was disturbed."""
    if side is None:
        return ""
    low, middle = side["min_us"] / 1e3, side["median_us"] / 1e3
    return f"{low:.3g} / {middle:.3g}" + (" ?" if side["noisy"] else "")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tools.zoo",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--only", default="*", metavar="PATTERN", help="networks, as 'bert*'")
    parser.add_argument("--static", action="store_true", help="only with all dims bound")
    parser.add_argument("--dynamic", action="store_true", help="only with all dims free")
    parser.add_argument("--latency", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="of either side")
    for name in ("rtol", "atol"):
        parser.add_argument(
            f"--{name}", type=float, help="taken literally; else by dtype and scale"
        )
    parser.add_argument("--timeout", type=float, default=600, metavar="SECONDS")
    parser.add_argument(
        "--resume", action="store_true", help="keep the rows of --json, add the rest"
    )
    parser.add_argument("--json", type=Path, default=Path("build/zoo.json"), metavar="FILE")
    return parser.parse_args()


def main() -> int:
    """Run what the command line asks for; 0 if every row passed, else 1."""
    args = parse()
    cases = wanted(args.only, [mode for mode in MODES if getattr(args, mode)])
    options = [f"--latency={args.threads}"] if args.latency else []
    given = {name: getattr(args, name) for name in ("rtol", "atol")}
    options += [f"--{name}={value}" for name, value in given.items() if value is not None]

    def run(network: str, mode: str) -> Row:
        return run_case(network, mode, args.timeout, args.threads, options)

    chosen = all_rows(cases, args.json, args.resume, run)
    print(f"{cpu_name()}; threads: {args.threads}; latencies: minimum / median.\n")
    print(table(chosen))
    return 0 if all(row["exit_code"] == 0 for row in chosen) else 1


if __name__ == "__main__":
    sys.exit(main())
