"""The command line: ``python -m tools.bench ops | model | oracle | dynamic | sentences | ...``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import MappingProxyType
from typing import Any

from . import quantized, report, sequences, tuning, workers
from .cases import select
from .contenders import torch_available
from .dynamic import command as dynamic
from .models import prepared


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tools.bench", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_ops(commands)
    _add_model(commands)
    _add_quantized(commands)
    _add_oracle(commands)
    dynamic.add(commands, _add_common)
    sequences.add(commands)
    tuning.add(commands)
    commands.choices["dynamic"].set_defaults(run=_dynamic)
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; 0 unless something that should have been measured failed."""
    args = parse(arguments)
    return int(args.run(args))


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
    parser.add_argument(
        "--processor-time",
        action="store_true",
        help="compare processor time, an orientation where the machine is busy",
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
    requests = [{"case": name, "family": name.partition("/")[0]} for name in names]
    machines, rows = _measure(args, requests, against)
    _print_machines(machines)
    print(report.ops_table(rows, against), end="\n\n")
    for name in against:
        print(f"{name} / tvmext, geometric means\n")
        print(report.family_table(rows, name), end="\n\n")
    return int(any("error" in row for row in rows))


def _add_model(commands: Any) -> None:
    parser = commands.add_parser("model", help="a whole model against ONNX Runtime")
    parser.add_argument("model", type=Path, metavar="MODEL.onnx", help="or one of tests/zoo")
    parser.add_argument(
        "--dim", action="append", default=[], metavar="NAME=SIZE", help="the size of a named dim"
    )
    parser.add_argument("--input-shapes", metavar="SHAPES", help='as "x:[1,3,224,224]"')
    parser.add_argument(
        "--free", action="store_true", help="compile for any size, run at the given ones"
    )
    parser.add_argument("--top", type=int, default=15, metavar="N", help="kernels to list")
    _add_common(parser, seconds=20.0, output="build/bench-model.json")
    parser.set_defaults(run=_model)


def _model(args: argparse.Namespace) -> int:
    from tvmext.cli.model import bind_shapes
    from tvmext.cli.parameters import dim_size, input_shapes
    from tvmext.errors import TvmextError

    try:
        sizes: dict[str, Any] = dict(map(dim_size, args.dim))
        if args.input_shapes:
            shapes = input_shapes(args.input_shapes)
            sizes = bind_shapes(args.model, shapes, sizes, trust=False, model_format="onnx")
        with prepared(args.model, sizes, args.free) as request:
            machines, rows = _measure(args, [request], ["onnxruntime"])
    except TvmextError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return _print_models(args, machines, rows)


def _print_models(
    args: argparse.Namespace, machines: list[workers.Row], rows: list[workers.Row]
) -> int:
    _print_machines(machines)
    print(report.models_table(rows), end="\n\n")
    for row in rows:
        if "profile" in row:
            print(f"kernels, threads {row['threads']}\n")
            print(report.profile_table(row, args.top), end="\n\n")
    return int(any("error" in row for row in rows))


def _add_quantized(commands: Any) -> None:
    parser = commands.add_parser("quantized", help="networks of 4-bit weights or 8-bit data")
    parser.add_argument("names", nargs="*", choices=[*quantized.NAMES, []], metavar="NETWORK")
    parser.add_argument("--folder", type=Path, default=Path("build/quantized"))
    parser.add_argument("--top", type=int, default=15, metavar="N", help="kernels to list")
    _add_common(parser, seconds=10.0, output="build/bench-quantized.json")
    parser.set_defaults(run=_quantized)


def _quantized(args: argparse.Namespace) -> int:
    with ExitStack() as stack:
        names = args.names or quantized.NAMES
        requests = [stack.enter_context(quantized.request(name, args.folder)) for name in names]
        machines, rows = _measure(args, requests, ["onnxruntime"])
    return _print_models(args, machines, rows)


def _add_oracle(commands: Any) -> None:
    parser = commands.add_parser("oracle", help="the decision that is picked against the best one")
    parser.add_argument("cases", nargs="+", metavar="PATTERN", help="cases, as 'gemm/128*'")
    _add_common(parser, seconds=3.0, output="build/bench-oracle.json")
    parser.set_defaults(run=_oracle)


def _oracle(args: argparse.Namespace) -> int:
    requests = [{"case": case.name, "oracle": True} for case in select(args.cases)]
    machines, rows = _measure(args, requests, ["onnxruntime"], environment=workers.HUGE_PAGES)
    _print_machines(machines)
    print(report.oracle_table(rows), report.oracle_summary(rows), sep="\n\n")
    return int(any("error" in row for row in rows))


def _dynamic(args: argparse.Namespace) -> int:
    if args.table:
        dynamic.show(args.json)
        return 0
    found, oracles = dynamic.drawn(args)
    dynamic.compile_all(found, oracles, args.folder)
    if args.compile:
        return 0
    done = [] if args.again else dynamic.earlier(args.json)
    requests = dynamic.requests(found, oracles, args.folder, {row["case"] for row in done})
    machines, rows = _measure(args, requests, dynamic.rivals(args), done)
    _print_machines(machines)
    print(dynamic.tables(rows))
    return int(any("error" in row for row in rows))


def _measure(
    args: argparse.Namespace,
    requests: list[workers.Row],
    against: list[str],
    done: Sequence[workers.Row] = (),
    environment: Mapping[str, str] = MappingProxyType({}),
) -> tuple[list[workers.Row], list[workers.Row]]:
    """(machines, rows) for every number of threads; the JSON file grows with each row.

    `done` are rows of an earlier run, which go first.
    """
    machines: list[workers.Row] = []
    rows = list(done)
    for threads in args.threads:
        settings = {
            "threads": threads,
            "against": against,
            "seconds": args.seconds,
            "processor_time": args.processor_time,
        }
        found = workers.rows(requests, settings, args.limit, environment)
        machines.append(next(found))
        for number, row in enumerate(found, 1):
            rows.append(row)
            print(f"[{number}/{len(requests)}] {_progress(row)}", file=sys.stderr)
            report.write_json(args.json, report.document(machines, rows=rows))
    return machines, rows


def _print_machines(machines: list[workers.Row]) -> None:
    for machine in machines:
        overhead = ", ".join(f"{side} {us} us" for side, us in machine["overhead_us"].items())
        facts = (
            machine["cpu"],
            f"threads {machine['threads']}",
            f"{machine['clock']} time",
            f"peak {machine['peak_gflops']} GFLOP/s fp32",
            f"a call alone: {overhead}",
        )
        print("; ".join(facts), end="\n\n")


def _progress(row: workers.Row) -> str:
    """One line about a row."""
    ratio = row.get("ratios", {}).get("onnxruntime", row)
    said = row.get("error") or report.ratio_text(ratio)
    if "noisy" in ratio:
        said = f"noisy: {ratio['noisy']}"
    return f"{row.get('case', row.get('name'))}, threads {row['threads']}: {said or 'measured'}"


if __name__ == "__main__":
    sys.exit(main())
