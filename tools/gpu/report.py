"""Results of a GPU host as tables: times, ratios to ours, and how far ours is from the roofline."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tvmext.measure.samples import geometric_mean

from ..bench.report import markdown, number, ratio_text
from .cases import LARGE
from .sides import SIDES

RESULTS = Path(__file__).parent / "results"
GOALS = (
    ("gemm, large", "torch", 0.9),
    ("gemm, irregular", "torch", 1.2),
    ("attention", "torch", 0.8),
    ("vtc", "torch.compile", 1.28),
    ("zoo", "torch.compile", 1.2),
)
"""(group, rival, time of the rival / ours that is to be reached): issue 5."""
Row = Mapping[str, Any]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "files", nargs="*", type=Path, help="results  [default: all in tools/gpu/results]"
    )


def main(args: argparse.Namespace) -> int:
    """Print the tables of each file."""
    files = args.files or sorted(RESULTS.glob("*.json"))
    for file in files:
        print(text(json.loads(file.read_text())))
    if not files:
        print("no results: python -m tools.gpu all, on a machine with a GPU, makes some")
    return 0


def text(results: Mapping[str, Any]) -> str:
    """Everything about one run: the machine, the checks, then the benchmarks."""
    machine = results.get("machine", {})
    head = f"# {results.get('date', '')}, {machine.get('device', 'unknown device')}"
    versions = ", ".join(f"{k} {v}" for k, v in machine.get("versions", {}).items())
    parts = [head, versions, checks_table(results.get("checks", []))]
    rows = results.get("bench", [])
    if rows:
        parts += ["## Groups", groups_table(rows), "## Cases", cases_table(rows)]
        if missed := [line for row in rows for line in problems(row)]:
            parts += ["## Failed", *missed]
        if absent(rows):
            parts += ["## Not written", absent_table(rows)]
    return "\n\n".join(part for part in parts if part)


def checks_table(checks: Sequence[Row]) -> str:
    lines = [
        [check["name"], check["result"], f"{check['seconds']:.0f}", check.get("detail", "")]
        for check in checks
    ]
    return markdown(["check", "result", "s", "detail"], lines, left=("check", "detail"))


def group(row: Row) -> str:
    """What a row counts to: a family, products by their size, and networks by where they come from.

    A large product has at least `LARGE` multiply-adds.
    """
    if row.get("family") == "gemm":
        return "gemm, large" if row.get("flops", 0) >= 2 * LARGE else "gemm, irregular"
    if row.get("family") == "network":
        return "vtc" if row["case"].startswith("vtc_") else "zoo"
    return str(row.get("family", "unknown"))


def groups_table(rows: Sequence[Row]) -> str:
    """Geometric means by group and rival, with the share of the roofline and what was aimed at."""
    rivals = [name for name in SIDES if name != "tvmext"]
    goals = {(where, rival): goal for where, rival, goal in GOALS}
    lines = []
    for name in sorted({group(row) for row in rows}):
        mine = [row for row in rows if group(row) == name]
        shares = [share for row in mine if (share := roofline_share(row))]
        for rival in rivals:
            ratios = [row.get("ratios", {}).get(rival, {}) for row in mine]
            values = [ratio["value"] for ratio in ratios if "value" in ratio]
            if not values:
                continue
            goal = goals.get((name, rival))
            mean = geometric_mean(values)
            lines.append(
                [
                    name,
                    rival,
                    str(len(values)),
                    str(sum("noisy" in ratio for ratio in ratios)),
                    number(mean),
                    number(min(values)),
                    "" if goal is None else f"{goal:g}: {'reached' if mean >= goal else 'missed'}",
                    f"{geometric_mean(shares):.0%}" if shares else "",
                ]
            )
    columns = ["group", "rival", "cases", "noisy", "rival / ours", "least", "goal", "of roofline"]
    return markdown(columns, lines, left=("group", "rival", "goal"))


def cases_table(rows: Sequence[Row]) -> str:
    """A line per case: our median, the share of the roofline, and the ratio to every rival."""
    rivals = [r for r in SIDES if r != "tvmext" and any(r in row.get("ratios", {}) for row in rows)]
    lines = []
    for row in rows:
        ours = row.get("sides", {}).get("tvmext", {})
        share = roofline_share(row)
        cells = [row["case"], number(ours.get("median_us")), f"{share:.0%}" if share else ""]
        cells += [ratio_text(row.get("ratios", {}).get(rival, {})) for rival in rivals]
        lines.append(cells)
    return markdown(["case", "tvmext us", "of roofline", *rivals], lines, left=("case",))


def absent(rows: Sequence[Row]) -> dict[tuple[str, str, str], int]:
    """{(group, side, why nobody has written it): cases}"""
    found: dict[tuple[str, str, str], int] = {}
    for row in rows:
        for side, why in row.get("missing", {}).items():
            key = (group(row), side, why)
            found[key] = found.get(key, 0) + 1
    return found


def absent_table(rows: Sequence[Row]) -> str:
    """A line per group and side without a contender."""
    lines = [[*key, str(count)] for key, count in sorted(absent(rows).items())]
    return markdown(["group", "side", "why", "cases"], lines, left=("group", "side", "why"))


def roofline_share(row: Row) -> float | None:
    """How much of our time the roofline explains; None where either is not known."""
    ours = row.get("sides", {}).get("tvmext")
    if not ours or "roofline_us" not in row or not ours["median_us"]:
        return None
    return float(row["roofline_us"] / ours["median_us"])


def problems(row: Row) -> Iterable[str]:
    """A line for each thing of a row that went wrong."""
    if "error" in row:
        yield f"- {row['case']}: {row['error']}"
    for side, why in row.get("failed", {}).items():
        yield f"- {row['case']}, {side}: {why}"
