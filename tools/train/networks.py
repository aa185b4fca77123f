"""Networks of the zoo, learned against analytic decisions: ``python -m tools.train networks``.

Each runs in a process of its own (``python -m tools.train.networks NETWORK``), with fixed sizes,
for one core; a network that fails is a row.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from ..bench.report import ratio_text
from ..zoo.case import networks, wanted
from ..zoo.runner import Row, all_rows, answer, revision, run_module

OURS, RIVAL = "learned", "analytic"
HEAD = (
    *("network", "kernels", "decided otherwise"),
    *("compile: learned / analytic", "time: analytic / learned"),
)


def table(args: argparse.Namespace) -> str:
    """What `args` of the command line ask for, as a Markdown table, with means below."""

    def row_of(network: str, mode: str) -> Row:
        command = [__name__, network, "--seconds", str(args.seconds)]
        command += ["--cost-model", args.cost_model]
        found = run_module(command, args.timeout)
        return {"network": network, "mode": mode, "revision": revision()} | found

    rows = all_rows(wanted(args.only, ["static"]), args.json, args.resume, row_of)
    lines = [f"| {' | '.join(HEAD)} |", "|---" * len(HEAD) + "|", *map(_line, rows)]
    passed = [row for row in rows if row["exit_code"] == 0]
    if passed:
        speedups = [speedup(row) for row in passed]
        compiles = [compile_ratio(row) for row in passed]
        lines += [
            "",
            f"{len(passed)} networks: time {statistics.geometric_mean(speedups):.3f} "
            f"({min(speedups):.2f} to {max(speedups):.2f}), "
            f"compile time {statistics.geometric_mean(compiles):.2f}.",
        ]
    return "\n".join(lines)


def _line(row: Row) -> str:
    if row["exit_code"]:
        why = f"exit {row['exit_code']}: {row['error'][:110].replace('|', '/')}"
        return f"| {row['network']} | {why} | | | |"
    found = row["ratios"][RIVAL]
    time = f"~{speedup(row):.2f}" if "noisy" in found else ratio_text(found)
    cells = (row["network"], row["kernels"], row["otherwise"], f"{compile_ratio(row):.2f}", time)
    return f"| {' | '.join(map(str, cells))} |"


def speedup(row: Row) -> float:
    """The median ratio of undisturbed rounds; of all of them where those are too few."""
    return float(row["ratios"][RIVAL].get("value", row["all_rounds"]))


def compile_ratio(row: Row) -> float:
    return float(row["compile_seconds"][OURS] / row["compile_seconds"][RIVAL])


def compared(network: str, cost_model: str, seconds: float) -> Row:
    """One network: how many kernels were decided otherwise, and both libraries in turns."""
    import tvmext

    from ..zoo.sides import compile_sides, timed

    sides = {OURS: tvmext.Options(cost_model=cost_model), RIVAL: tvmext.Options()}
    with TemporaryDirectory(prefix="tvmext-sides-") as name:
        folder = Path(name)
        row = compile_sides(network, "static", folder, sides)
        decisions = row.pop("decisions")
        ours, theirs = ([one["decision"] for one in decisions[side].values()] for side in sides)
        row |= {"kernels": len(ours), "otherwise": sum(a != b for a, b in zip(ours, theirs))}
        return row | timed(folder, OURS, RIVAL, seconds)


def main() -> int:
    """Print one JSON object; the exit code of what went wrong, else 0."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("network", choices=networks(), metavar="NETWORK")
    parser.add_argument("--cost-model", default=OURS)
    parser.add_argument("--seconds", type=float, default=6)
    args = parser.parse_args()
    return answer(lambda: compared(args.network, args.cost_model, args.seconds))


if __name__ == "__main__":
    sys.exit(main())
