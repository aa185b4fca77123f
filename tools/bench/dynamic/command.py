"""``python -m tools.bench dynamic``: draw, compile what is missing, measure what is missing."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tvmext.measure.samples import geometric_mean

from .. import report
from ..contenders import torch_available
from . import cases, kernels
from .row import ONNX_RUNTIME, STATIC, TORCH

Row = dict[str, Any]


def add(commands: Any, common: Any) -> None:
    """The subcommand; `common` adds the options that all have."""
    parser = commands.add_parser("dynamic", help="kernels for any size, by MikPoly's protocol")
    parser.add_argument("--gemms", type=int, default=60, metavar="N", help="products to draw")
    parser.add_argument("--convs", type=int, default=30, metavar="N", help="convolutions to draw")
    told = "cases that are compared with each of their candidates, as kernels for any size"
    parser.add_argument("--oracles", type=int, default=20, metavar="N", help=told)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", metavar="TEXT", help="cases with this in their name")
    parser.add_argument("--compile", action="store_true", help="compile only, measure nothing")
    parser.add_argument("--again", action="store_true", help="measure what the file has already")
    parser.add_argument("--table", action="store_true", help="print the file, measure nothing")
    parser.add_argument("--folder", type=Path, default=Path("build/dynamic"), metavar="FOLDER")
    parser.add_argument("--no-torch", action="store_true", help="leave torch out")
    common(parser, seconds=1.2, output="build/bench-dynamic.json")


def drawn(args: argparse.Namespace) -> tuple[list[cases.Case], set[str]]:
    """The cases, and the names of those with an oracle."""
    found: list[cases.Case] = [
        *cases.gemms(args.gemms, args.seed),
        *cases.convs(args.convs, args.seed),
    ]
    oracles = {case.name for case in cases.spread(found, args.oracles)}
    return [case for case in found if args.only in case.name], oracles


def compile_all(found: Sequence[cases.Case], oracles: set[str], folder: Path) -> None:
    """All kernels of the cases, many to a library."""
    ready = []
    for case in found:
        ready += [kernels.dynamic(case), kernels.static(case)]
        ready += kernels.candidates(case) if case.name in oracles else []
    kernels.libraries(ready, folder)


def requests(
    found: Sequence[cases.Case], oracles: set[str], folder: Path, done: set[str]
) -> list[Row]:
    """What workers are asked for; `done` names what is measured already."""
    return [
        {
            "case": case.name,
            "dynamic": asdict(case),
            "folder": str(folder.absolute()),
            "oracle": case.name in oracles,
        }
        for case in found
        if case.name not in done
    ]


def rivals(args: argparse.Namespace) -> list[str]:
    """The other sides."""
    return [ONNX_RUNTIME, *([TORCH] if torch_available() and not args.no_torch else [])]


def earlier(path: Path) -> list[Row]:
    """The rows of a file that were measured."""
    if not path.exists():
        return []
    rows: list[Row] = json.loads(path.read_text())["rows"]
    return [row for row in rows if "sides" in row]


def tables(rows: Sequence[Row]) -> str:
    """A line for each case, and the means of each family."""
    sides = (STATIC, ONNX_RUNTIME, TORCH)
    columns = ["case", "us", *(f"{side} / dynamic" for side in sides), "interior", "of the best"]
    lines = []
    for row in rows:
        ratios = row.get("ratios", {})
        us = row.get("sides", {}).get("dynamic", {}).get("min_us")
        cells = [row["case"], "" if us is None else f"{us:.4g}"]
        cells += [_ratio_text(row, side) for side in sides]
        cells += [report.number(ratios.get(ONNX_RUNTIME, {}).get("interior"))]
        lines.append([*cells, report.number(row.get("oracle"))])
    table = report.markdown(columns, lines, left=("case",))
    return f"{table}\n\n{summary(rows)}"


def summary(rows: Sequence[Row]) -> str:
    """Geometric means and the least by family."""
    columns = ["family", "against", "cases", "geometric mean", "least", "below 0.95"]
    lines = []
    families = dict.fromkeys(row.get("family", "") for row in rows)
    for family in families:
        chosen = [row for row in rows if row.get("family", "") == family]
        for side in (STATIC, ONNX_RUNTIME, "interior", TORCH, "best"):
            values = [value for value in (_value(row, side) for row in chosen) if value]
            if values:
                low = sum(value < 0.95 for value in values)
                cells = [f"{geometric_mean(values):.3f}", f"{min(values):.2f}", str(low)]
                lines.append([family, side, str(len(values)), *cells])
    return report.markdown(columns, lines, left=("family", "against"))


def _value(row: Row, side: str) -> float | None:
    ratios = row.get("ratios", {})
    if side == "best":
        found: float | None = row.get("oracle")
        return found
    if side == "interior":
        return ratios.get(ONNX_RUNTIME, {}).get("interior")
    return ratios.get(side, {}).get("value") or _of_minima(row, side)


def _of_minima(row: Row, side: str) -> float | None:
    sides = row.get("sides", {})
    both = sides.get(side), sides.get("dynamic")
    return both[0]["min_us"] / both[1]["min_us"] if both[0] and both[1] else None


def _ratio_text(row: Row, side: str) -> str:
    """The median over rounds, or that of the minima where the machine was disturbed, with ~."""
    found = row.get("ratios", {}).get(side, {})
    if "noisy" not in found:
        return report.ratio_text(found)
    value = _of_minima(row, side)
    return "" if value is None else f"~{value:.2f}"


def show(path: Path) -> None:
    print(tables(json.loads(path.read_text())["rows"]), file=sys.stdout)
