"""The command line: ``python -m tools.bench ops | model``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from . import ops, report
from .cases import select
from .contenders import torch_available


def main(argv: list[str] | None = None) -> int:
    """Run a command; 0 unless something that should have been measured failed."""
    parser = argparse.ArgumentParser(prog="python -m tools.bench", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_ops(commands)
    args = parser.parse_args(argv)
    return args.run(args)


def _add_ops(commands: Any) -> None:
    parser = commands.add_parser("ops", help="operators against ONNX Runtime and torch")
    parser.add_argument("cases", nargs="*", metavar="PATTERN", help="cases, as 'gemm/*'; else all")
    parser.add_argument("--list", action="store_true", help="print the names of the cases")
    parser.add_argument("--no-torch", action="store_true", help="leave torch out")
    _add_common(parser, seconds=3.0, output="build/bench-ops.json")
    parser.set_defaults(run=_ops)


def _add_common(parser: Any, seconds: float, output: str) -> None:
    parser.add_argument(
        "--threads", type=_counts, default=[1], metavar="N,...", help="such as 1,2 (default: 1)"
    )
    parser.add_argument(
        "--seconds", type=float, default=seconds, help="at most, for one comparison"
    )
    parser.add_argument("--limit", type=float, default=300, help="seconds for a case in all")
    parser.add_argument("--json", type=Path, default=Path(output), metavar="FILE")


def _counts(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


def _ops(args: argparse.Namespace) -> int:
    names = [case.name for case in select(args.cases)]
    if args.list:
        print(*names, sep="\n")
        return 0
    if not names:
        print("no case matches; --list names them all", file=sys.stderr)
        return 2
    against = ["onnxruntime", *(["torch"] if torch_available() and not args.no_torch else [])]
    machines, rows = [], []
    for threads in args.threads:
        found = ops.rows(names, threads, against, args.seconds, args.limit)
        machines.append(next(found))
        for number, row in enumerate(found, 1):
            rows.append(row)
            print(f"[{number}/{len(names)}] {_progress(row)}", file=sys.stderr)
            report.write_json(args.json, report.document(machines, rows=rows))
    for machine in machines:
        print(machine, "\n")
    print(report.ops_table(rows, against), end="\n\n")
    for name in against:
        print(f"{name} / tvmext, geometric means\n")
        print(report.family_table(rows, name), end="\n\n")
    return int(any("error" in row for row in rows))


def _progress(row: Any) -> str:
    ratio = row.get("ratios", {}).get("onnxruntime", {})
    said = row.get("error") or ratio.get("noisy") or report.ratio_text(ratio)
    return f"{row['case']}, threads {row['threads']}: {said}"


if __name__ == "__main__":
    sys.exit(main())
