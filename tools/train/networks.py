"""Networks of the zoo, learned decisions against analytic ones and TVM's own schedules.

    python -m tools.train networks

Each runs in a process of its own (``python -m tools.train.networks NETWORK``), with fixed sizes,
for one core; a network that fails is a row, and so is one that TVM cannot compile. With
``--libraries`` what is compiled is kept, so that it can be compiled on a busy machine
(``--seconds 0``) and timed on a quiet one.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from ..bench.report import ratio_text
from ..zoo.case import networks, wanted
from ..zoo.runner import Row, all_rows, answer, revision, run_module

OURS, RIVAL, STOCK = "learned", "analytic", "stock"
HEAD = (
    *("network", "kernels", "decided otherwise"),
    *("compile: learned / analytic", "time: analytic / learned", "time: stock / learned"),
)


def table(args: argparse.Namespace) -> str:
    """What `args` of the command line ask for, as a Markdown table, with means below."""

    def row_of(network: str, mode: str) -> Row:
        command = [__name__, network, "--seconds", str(args.seconds)]
        command += ["--cost-model", args.cost_model]
        command += ["--compile-seconds", str(args.compile_seconds)]
        if args.libraries:
            command += ["--libraries", str((args.libraries / network).absolute())]
        found = run_module(command, args.timeout)
        return {"network": network, "mode": mode, "revision": revision()} | found

    rows = all_rows(wanted(args.only, ["static"]), args.json, args.resume, row_of)
    lines = [f"| {' | '.join(HEAD)} |", "|---" * len(HEAD) + "|", *map(_line, rows)]
    passed = [row for row in rows if row["exit_code"] == 0]
    means = (
        ("time, analytic / learned", [speedup(row) for row in passed if "ratios" in row]),
        ("time, stock / learned", [row["stock_ratio"] for row in passed if "stock_ratio" in row]),
        ("compile time, learned / analytic", [compile_ratio(row) for row in passed]),
    )
    lines += ["", *(_mean(name, ratios) for name, ratios in means if ratios)]
    return "\n".join(lines)


def _mean(name: str, ratios: list[float]) -> str:
    mean = statistics.geometric_mean(ratios)
    return f"{len(ratios)} networks: {name} {mean:.3f} ({min(ratios):.2f} to {max(ratios):.2f})"


def _line(row: Row) -> str:
    if row["exit_code"]:
        return f"| {row['network']} | exit {row['exit_code']}: {_short(row['error'])}" + " |" * 5
    time = ""
    if "ratios" in row:
        found = row["ratios"][RIVAL]
        time = f"~{speedup(row):.2f}" if "noisy" in found else ratio_text(found)
    stock = f"{row['stock_ratio']:.1f}" if "stock_ratio" in row else _short(row["stock_error"])
    cells = (row["network"], row["kernels"], row["otherwise"], f"{compile_ratio(row):.2f}")
    return f"| {' | '.join(map(str, (*cells, time, stock)))} |"


def _short(error: str) -> str:
    return " ".join(error.split())[:110].replace("|", "/")


def speedup(row: Row) -> float:
    """The median ratio of undisturbed rounds; of all of them where those are too few."""
    return float(row["ratios"][RIVAL].get("value", row["all_rounds"]))


def compile_ratio(row: Row) -> float:
    """Of processor seconds."""
    return float(row["compile_cpu"][OURS] / row["compile_cpu"][RIVAL])


def compiled(network: str, cost_model: str, seconds: float, folder: Path) -> Row:
    """Libraries of all sides in `folder`, and how many kernels were decided otherwise; what is
    there already is left as it is.

    Both of ours are compiled again and again for `seconds`, once at least.
    """
    import tvmext

    from ..zoo.sides import compile_sides

    done = folder / "row.json"
    if done.exists():
        kept: Row = json.loads(done.read_text())
        return kept
    sides = {OURS: tvmext.Options(cost_model=cost_model), RIVAL: tvmext.Options()}
    row = compile_sides(network, "static", folder, sides, seconds=seconds, stock=True)
    decisions = row.pop("decisions")
    ours, theirs = ([one["decision"] for one in decisions[side].values()] for side in sides)
    row |= {"kernels": len(ours), "otherwise": sum(a != b for a, b in zip(ours, theirs))}
    done.write_text(json.dumps(row))
    return row


def timed(folder: Path, row: Row, seconds: float) -> Row:
    """`row` with the times of its libraries: ours in turns, and all three in a few rounds."""
    from ..zoo import sides

    row = row | sides.timed(folder, OURS, RIVAL, seconds)
    if row["stock_error"]:
        return row
    try:
        slow = sides.timed_slow(folder, (OURS, RIVAL, STOCK), seconds)
    except Exception as error:  # TVM's library fails where ours did not
        return row | {"stock_error": f"{type(error).__name__}: {error}"}
    return row | {"stock_seconds": slow, "stock_ratio": slow[STOCK] / slow[OURS]}


def compared(args: argparse.Namespace) -> dict[str, Any]:
    """One network: how its kernels were decided, and what the three libraries take."""
    with TemporaryDirectory(prefix="tvmext-sides-") as name:
        folder = args.libraries or Path(name)
        row = compiled(args.network, args.cost_model, args.compile_seconds, folder)
        return timed(folder, row, args.seconds) if args.seconds else row


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("network", choices=networks(), metavar="NETWORK")
    parser.add_argument("--cost-model", default=OURS)
    parser.add_argument("--seconds", type=float, default=6)
    parser.add_argument("--compile-seconds", type=float, default=0)
    parser.add_argument("--libraries", type=Path, metavar="FOLDER", help="kept, and used again")
    return parser.parse_args(arguments)


def main() -> int:
    """Print one JSON object; the exit code of what went wrong, else 0."""
    args = parse()
    return answer(lambda: compared(args))


if __name__ == "__main__":
    sys.exit(main())
