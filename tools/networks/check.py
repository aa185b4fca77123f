"""Compile exported networks and compare them with ONNX Runtime, with dims bound and with dims free.

python -m tools.networks.check FOLDER 'bert*'     # after `tools.networks FOLDER`

Each network runs twice, in a process of its own each: compiled for one size of every dim, and
compiled once for all and run at three. The table (Markdown) goes to stdout, the figures to --json.
"""

from __future__ import annotations

import argparse
import fnmatch
import os
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import onnx

from ..zoo.runner import Row, all_rows, answer, revision, run_module

SIZES = {
    "batch": (2, 1, 3, 2),
    "rows": (9, 5, 1, 33),
    "seq": (9, 7, 1, 13),
    "source": (5, 5, 1, 9),
    "height": (64, 64, 96, 160),
    "width": (96, 96, 64, 128),
    "samples": (4000, 4000, 1600, 5120),
}
"""Of each kind of dim: the one it is bound to, and three to run at where it is free."""

MODES = ("static", "dynamic")


def kinds(model: onnx.ModelProto) -> dict[str, str]:
    """The kind of each free dim by its name; exporters that invent names: by its place."""
    weights = {tensor.name for tensor in model.graph.initializer}
    found: dict[str, str] = {}
    for value in model.graph.input:
        if value.name in weights:
            continue
        tensor = value.type.tensor_type
        places = _places(value.name, tensor.elem_type, len(tensor.shape.dim))
        for axis, (dim, place) in enumerate(zip(tensor.shape.dim, places)):
            name = dim.dim_param or f"{value.name}_{axis}"
            if not dim.dim_value:
                found.setdefault(name, name if name in SIZES else place)
    return found


def _places(name: str, dtype: int, rank: int) -> list[str]:
    if rank == 4:
        return ["batch", "channels", "height", "width"]
    if dtype == onnx.TensorProto.INT64:
        return ["batch", "seq"]
    if rank == 3:
        return ["batch", "source", "hidden"]
    return ["batch", "samples"] if name.startswith("input") else ["rows", "columns"]


def measure(path: Path, mode: str) -> Row:
    """Compile and verify one network: "seconds" (compile), "sizes", "passed", "max_abs", "detail"
    (of the first output that differs)."""
    import tvmext

    named = kinds(onnx.load(path, load_external_data=False))
    started = time.monotonic()
    if mode == "static":
        bound = {name: SIZES[kind][0] for name, kind in named.items()}
        compiled, dims = tvmext.compile(path, dims=bound), {}
    else:
        compiled = tvmext.compile(path)
        free = [name for name in named if name in compiled.metadata.dims]
        dims = {name: list(SIZES[named[name]][1:]) for name in free}
    seconds = time.monotonic() - started
    report = tvmext.verify(path, compiled=compiled, dims=dims, reference="onnxruntime")
    outputs = [output for case in report.cases for output in case.outputs]
    failed = [output for output in outputs if not output.passed]
    return {
        "seconds": seconds,
        "sizes": len(report.cases),
        "passed": not failed,
        "max_abs": max(float(output.max_abs) for output in outputs),
        "detail": "".join(
            f"{o.name}: {o.problem or f'{o.failed} of {o.total} differ, max abs {o.max_abs:.1e}'}"
            for o in failed[:1]
        ),
    }


def table(rows: Iterable[Row]) -> str:
    lines = ["| network | static | dynamic | max abs |", "|---|---|---|---:|"]
    networks: dict[str, dict[str, Row]] = {}
    for row in rows:
        networks.setdefault(row["network"], {})[row["mode"]] = row
    for name, modes in networks.items():
        cells = [_result(modes[mode]) if mode in modes else "-" for mode in MODES]
        worst = max((row["max_abs"] for row in modes.values() if "max_abs" in row), default=0.0)
        lines.append(f"| {name} | {cells[0]} | {cells[1]} | {worst:.1e} |")
    return "\n".join(lines)


def _result(row: Row) -> str:
    said = row.get("error") or row.get("detail") or ""
    return "passed" if row["exit_code"] == 0 else f"exit {row['exit_code']}: {said[:100]}"


def cases(folder: Path, pattern: str) -> Iterator[tuple[str, str]]:
    for path in sorted(folder.glob("*.onnx")):
        if fnmatch.fnmatch(path.stem, pattern):
            free = kinds(onnx.load(path, load_external_data=False))
            yield from ((path.stem, mode) for mode in MODES if free or mode == "static")


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tools.networks.check")
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="where the networks are")
    parser.add_argument("pattern", nargs="?", default="*", help="some of them, as 'bert*'")
    parser.add_argument("--mode", choices=MODES, help="just this one, of one network, as JSON")
    parser.add_argument("--timeout", type=float, default=600, metavar="SECONDS")
    parser.add_argument("--resume", action="store_true", help="keep the rows of --json")
    parser.add_argument("--json", type=Path, default=Path("build/networks.json"), metavar="FILE")
    return parser.parse_args(arguments)


def main() -> int:
    """The table; 1 if a network failed."""
    args = parse()
    folder = args.folder.resolve()
    if args.mode:
        return answer(lambda: measure(folder / f"{args.pattern}.onnx", args.mode))

    def run(network: str, mode: str) -> Row:
        command = ["tools.networks.check", str(folder), network, "--mode", mode]
        return {"network": network, "mode": mode} | run_module(command, args.timeout)

    rows = all_rows(list(cases(folder, args.pattern)), args.json, args.resume, run)
    print(f"{table(rows)}\n\nat {revision()}, {os.cpu_count()} cores")
    return 1 if any(row["exit_code"] for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
