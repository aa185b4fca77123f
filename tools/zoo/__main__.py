"""Compile and verify every network of the zoo, time it against ONNX Runtime, print the table.

    python -m tools.zoo                           # all, static and dynamic, with latency
    python -m tools.zoo --static --threads 1,2    # some, on one thread and on two
    python -m tools.zoo --resume                  # go on where it was interrupted

Each network runs in a process of its own, under a time limit. What fails is a row with its exit
code and the first line of its error. The table (Markdown) goes to stdout, the figures to --json.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from tvmext.measure.host import cpu_name

from ..bench.report import ratio_text
from .case import MODES, counts, wanted
from .runner import Row, all_rows, run_case


def table(rows: Iterable[Row]) -> str:
    """The rows as a Markdown table, and a summary below it."""
    rows = list(rows)
    threads = sorted({count for row in rows for count in row.get("latency", {})})
    lines = [
        "| network | dims | result | max abs | compile s | .so MB | compiler MB |"
        + "".join(f" tvmext ms, {n} | ONNX Runtime ms, {n} | ratio, {n} |" for n in threads),
        "|---|---|---|---:|---:|---:|---:|" + "---:|---:|---:|" * len(threads),
        *(table_line(row, threads) for row in rows),
        "",
    ]
    by_mode = {m: [row for row in rows if row["mode"] == m] for m in MODES}
    for mode, chosen in by_mode.items():
        passed = sum(row["exit_code"] == 0 for row in chosen)
        lines += [f"- {mode}: {passed} of {len(chosen)} pass"] if chosen else []
        lines += [
            f"- {mode}, threads: {n}; time of ONNX Runtime / tvmext: {summary(chosen, n)}"
            for n in threads
        ]
    return "\n".join(lines)


def summary(rows: Iterable[Row], threads: str) -> str:
    """The geometric mean and the ends of the ratios of a mode."""
    found = [row["latency"][threads]["ratios"]["onnxruntime"] for row in rows if "latency" in row]
    ratios = [ratio["value"] for ratio in found if "value" in ratio]
    text = "none"
    if ratios:
        mean = statistics.geometric_mean(ratios)
        text = f"geometric mean {mean:.2f}, {min(ratios):.2f} to {max(ratios):.2f}"
    noisy = sum("noisy" in ratio for ratio in found)
    return text + (f"; no ratio for {noisy}, which were disturbed" if noisy else "")


def table_line(row: Row, threads: Iterable[str]) -> str:
    """One row of the Markdown table; minimum / median for the latencies."""
    result = "passed" if row["exit_code"] == 0 else f"exit {row['exit_code']}"
    result += told_sizes(row)
    if detail := row.get("error") or row.get("detail"):
        result += f": {detail.replace('|', '/')[:110]}"
    cells = [row["network"], row["mode"], result]
    if "seconds" in row:
        cells += [f"{row['max_abs']:.1e}", f"{row['seconds']:.1f}"]
        cells += [f"{row['bytes'] / 1e6:.1f}", f"{row['compiler_rss'] / 1e6:.0f}"]
    else:
        cells += [""] * 4
    for count in threads:
        found = row.get("latency", {}).get(count, {"sides": {}, "ratios": {}})
        cells += [milliseconds(found["sides"].get(name)) for name in ("tvmext", "onnxruntime")]
        cells.append(ratio_text(found["ratios"].get("onnxruntime", {})))
    return f"| {' | '.join(cells)} |"


def told_sizes(row: Row) -> str:
    """At how many sizes, and why not at others, where it was verified at many."""
    reasons = {"refused": "refused", "no_reference": "not in ONNX Runtime", "left": "no time"}
    others = [f"{row[key]} {text}" for key, text in reasons.items() if row.get(key)]
    return (
        f" at {row['sizes']} ({', '.join(others)})"
        if others
        else (f" at {row['sizes']}" if "left" in row else "")
    )


def milliseconds(side: Row | None) -> str:
    """``minimum / median``, with a question mark where the machine was disturbed."""
    if side is None:
        return ""
    low, middle = side["min_us"] / 1e3, side["median_us"] / 1e3
    return f"{low:.3g} / {middle:.3g}" + (" ?" if side["noisy"] else "")


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tools.zoo",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--only", default="*", metavar="PATTERN", help="networks, as 'bert*'")
    parser.add_argument("--static", action="store_true", help="only with all dims bound")
    parser.add_argument("--dynamic", action="store_true", help="only with all dims free")
    parser.add_argument("--latency", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--threads", default="1", metavar="N,...", help="of either side, as 1,2")
    parser.add_argument(
        "--sizes",
        type=int,
        default=0,
        metavar="N",
        help="verify dynamic ones at N sizes of each dim",
    )
    for name in ("rtol", "atol"):
        parser.add_argument(
            f"--{name}", type=float, help="taken literally; else by dtype and scale"
        )
    parser.add_argument("--timeout", type=float, default=600, metavar="SECONDS")
    parser.add_argument(
        "--resume", action="store_true", help="keep the rows of --json, add the rest"
    )
    parser.add_argument("--json", type=Path, default=Path("build/zoo.json"), metavar="FILE")
    return parser.parse_args(arguments)


def main() -> int:
    """Run what the command line asks for; 0 if every row passed, else 1."""
    args = parse()
    cases = wanted(args.only, [mode for mode in MODES if getattr(args, mode)])
    options = [f"--latency={args.threads}"] if args.latency else []
    most = max(counts(args.threads))
    given = {name: getattr(args, name) for name in ("rtol", "atol")}
    options += [f"--{name}={value}" for name, value in given.items() if value is not None]

    def run(network: str, mode: str) -> Row:
        several = [f"--sizes={args.sizes}"] if args.sizes and mode == "dynamic" else []
        return run_case(network, mode, args.timeout, most, [*options, *several])

    chosen = all_rows(cases, args.json, args.resume, run)
    print(f"{cpu_name()}; latencies: minimum / median.\n")
    print(table(chosen))
    return 0 if all(row["exit_code"] == 0 for row in chosen) else 1


if __name__ == "__main__":
    sys.exit(main())
