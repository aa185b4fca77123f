"""Every network of the zoo compiled for GPUs, on a machine that needs none: the table of it."""

from __future__ import annotations

import argparse
import fnmatch
import json
from collections.abc import Iterable
from pathlib import Path

from ..zoo.case import wanted
from ..zoo.runner import Row, all_rows, run_module
from .networks import network_cases

ARCHS = "sm_80,sm_90a"
MODES = ("static", "dynamic")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--arch", default=ARCHS, metavar="NAME,...", help=f"default: {ARCHS}")
    parser.add_argument("--only", default="*", metavar="PATTERN", help="networks, as 'bert*'")
    parser.add_argument("--static", action="store_true", help="only with all dims bound")
    parser.add_argument("--dynamic", action="store_true", help="only with all dims free")
    parser.add_argument("--narrow", action="store_true", help="only in half types, as benchmarked")
    parser.add_argument("--resume", action="store_true", help="keep the rows that are there")
    parser.add_argument("--timeout", type=float, default=600, metavar="SECONDS")
    parser.add_argument("--output", type=Path, default=Path("build/gpu-compile"), metavar="FOLDER")


def main(args: argparse.Namespace) -> int:
    """Compile, write one JSON per architecture and a table of all; 0 if every network compiled."""
    cases = narrow(args.only) if args.narrow else wanted(args.only, chosen(args))
    rows: dict[str, list[Row]] = {}
    for arch in args.arch.split(","):

        def run(network: str, mode: str, arch: str = arch) -> Row:
            command = ["tools.gpu.case", network, mode, arch]
            return {"network": network, "mode": mode} | run_module(command, args.timeout)

        file = args.output / f"{arch}.json"
        rows[arch] = all_rows(cases, file, args.resume, run)
    text = table(rows)
    (args.output / "table.md").write_text(text + "\n")
    print(text)
    return 0 if all(row["exit_code"] == 0 for part in rows.values() for row in part) else 1


def chosen(args: argparse.Namespace) -> list[str]:
    return [mode for mode in MODES if getattr(args, mode)]


def narrow(pattern: str) -> list[tuple[str, str]]:
    """The networks of the benchmarks: in which type, and at which batch."""
    return [
        (case.network, f"{case.dtype}-b{case.batch}")
        for case in network_cases()
        if fnmatch.fnmatch(case.network, pattern)
    ]


def tables(folder: Path) -> str:
    """The table of what lies in `folder`."""
    files = sorted(folder.glob("sm_*.json"))
    return table({file.stem: json.loads(file.read_text())["rows"] for file in files})


def table(rows: dict[str, list[Row]]) -> str:
    """Markdown: a line per network and mode, columns per architecture, then what is wrong.

    Seconds are those of the cores together: they hardly depend on what else the machine does.
    """
    found = {(arch, row["network"], row["mode"]): row for arch in rows for row in rows[arch]}
    columns = "".join(f" {arch}: CPU s | kernels | code KB | registers |" for arch in rows)
    lines = [
        f"| network | dims |{columns} spills | one element per thread |",
        "|---|---|" + "---:|" * (4 * len(rows) + 2),
    ]
    for network, mode in dict.fromkeys((network, mode) for _, network, mode in found):
        mine = [found.get((arch, network, mode)) for arch in rows]
        cells = [network, mode, *(cell for row in mine for cell in _cells(row))]
        cells += [str(_count(mine, "spills")), str(_count(mine, "slow"))]
        lines.append(f"| {' | '.join(cells)} |")
    every = list(found.values())
    failed = [row for row in every if row["exit_code"]]
    lines += ["", f"{len(every) - len(failed)} of {len(every)} compile."]
    lines += [f"- {row['network']} {row['mode']}: {row.get('error', '')[:200]}" for row in failed]
    for what, text in (("spills", "spill registers"), ("slow", "move one element per thread")):
        names = [f"{r['network']} {r['mode']}: {name}" for r in every for name in r.get(what, ())]
        lines += [f"{len(set(names))} kernels {text}.", *(f"- {n}" for n in dict.fromkeys(names))]
    return "\n".join(lines)


def _cells(row: Row | None) -> list[str]:
    if row is None:
        return [""] * 4
    if row["exit_code"]:
        return [f"exit {row['exit_code']}", "", "", ""]
    return [
        f"{row['cpu_seconds']:.0f}",
        str(row["kernels"]),
        f"{row['code'] / 1e3:.0f}",
        str(row["registers"]),
    ]


def _count(rows: Iterable[Row | None], what: str) -> int:
    return max((len(row.get(what, ())) for row in rows if row), default=0)
