"""How the choices are made that virtual tensors leave: ``python -m tools.movement.plans``.

    python -m tools.movement.plans                         # all networks, fixed sizes
    python -m tools.movement.plans --dynamic --only 'swin*'

For each network: the tensors that movement would write, the components of the opportunity graph
(passes/virtual/opportunity.py), those that were decided exactly, for how many of these the greedy
of the VTC paper finds a plan as good and by how much it is dearer, and the seconds that the passes
take. With --static and --dynamic both, also what is decided differently. The table (Markdown) goes
to stdout, the figures to --json.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Sequence
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any

from tvmext.measure.host import cpu_name

from ..zoo.case import MODES, drawn, wanted
from ..zoo.runner import Row, all_rows, revision, run_module

PASSES = ("NarrowRows", "VirtualTensors", "JoinLoaders", "JoinStores", "JoinOperands", "Views")
"""Those that virtual tensors are made of."""

COLUMNS = (
    *("network", "dims", "tensors", "virtual", "components", "largest", "exact"),
    *("greedy as good", "mean gap", "worst gap", "seconds"),
)


def planned(network: str, mode: str) -> Row:
    """The passes up to `Views` on one network: its components, decisions and seconds."""
    import time

    import tvm

    from tvmext.arch import resolve, to_target
    from tvmext.frontends import load
    from tvmext.options import Options
    from tvmext.passes.pipeline import pipeline
    from tvmext.passes.virtual.strategy import greedy
    from tvmext.schedules.rules import rules_for
    from tvmext.schedules.schedule import ScheduleKernels

    with drawn(network, mode) as (path, _, bound):
        model = load(path, dims=bound or {}, name=network)
    arch, options = resolve("llvm"), Options()
    schedule = ScheduleKernels(arch, rules_for(arch, options))
    passes = pipeline(model, schedule, schedule.reading, "llvm", options)
    mod, seconds = model.mod, {}
    with tvm.target.Target(to_target(arch)), tvm.transform.PassContext(opt_level=3):
        for each in passes:
            started = time.process_time()
            mod = each(mod)
            seconds[each.info.name] = time.process_time() - started
            if each.info.name == "JoinLoaders":
                joined = each
            if each.info.name == PASSES[-1]:
                break
    components = [
        {
            "tensors": len(problem.component),
            "exact": plan.exact,
            "cycles": problem.cycles(plan.virtual),
            "greedy": problem.cycles(greedy(problem).virtual),
        }
        for problem, plan in joined.problems
    ]
    decisions = [[list(one.operators), one.written] for one in joined.decisions]
    spent = {name: seconds[name] for name in PASSES}
    return {"components": components, "decisions": decisions, "seconds": spent}


def table(rows: Sequence[Row]) -> str:
    """The rows as a Markdown table, with totals below."""
    passed = [row for row in rows if row["exit_code"] == 0]
    return "\n".join(
        [
            f"| {' | '.join(COLUMNS)} |",
            f"|---|---|{'---:|' * (len(COLUMNS) - 2)}",
            *map(table_line, rows),
            "",
            summary(passed),
        ]
    )


def table_line(row: Row) -> str:
    """One row; of a network that failed, why."""
    if row["exit_code"]:
        why = f"exit {row['exit_code']}: {row['error'][:110].replace('|', '/')}"
        return f"| {row['network']} | {row['mode']} | {why} |{' |' * (len(COLUMNS) - 3)}"
    found = gaps([row])
    cells = [
        row["network"],
        row["mode"],
        len(row["decisions"]),
        sum(not why for _, why in row["decisions"]),
        len(row["components"]),
        max((one["tensors"] for one in row["components"]), default=0),
        len(found),
        sum(gap == 0 for gap in found),
        f"{100 * statistics.mean(found):.1f} %" if found else "",
        f"{100 * max(found):.1f} %" if found else "",
        f"{sum(row['seconds'].values()):.2f}",
    ]
    return f"| {' | '.join(map(str, cells))} |"


def gaps(rows: Sequence[Row]) -> list[float]:
    """By how much greedy is dearer, for each component that was decided exactly."""
    exact = [one for row in rows for one in row["components"] if one["exact"]]
    return [one["greedy"] / one["cycles"] - 1 if one["cycles"] else 0.0 for one in exact]


def summary(rows: Sequence[Row]) -> str:
    """Totals over networks."""
    found = gaps(rows)
    if not found:
        return f"{len(rows)} networks."
    components = sum(len(row["components"]) for row in rows)
    slowest = max(rows, key=lambda row: sum(row["seconds"].values()))
    return (
        f"{len(rows)} networks: {components} components, {len(found)} decided exactly; greedy as "
        f"good in {100 * sum(gap == 0 for gap in found) / len(found):.1f} %, dearer by "
        f"{100 * statistics.mean(found):.2f} % on average and {100 * max(found):.1f} % at worst; "
        f"slowest {slowest['network']} {slowest['mode']}, {sum(slowest['seconds'].values()):.2f} s."
    )


def differences(static: Row, dynamic: Row) -> list[str]:
    """What is decided otherwise, or is there at all, with fixed and with free sizes."""
    sides = [[", ".join(names) for names, _ in row["decisions"]] for row in (static, dynamic)]
    found: list[str] = []
    matcher = SequenceMatcher(None, *sides, autojunk=False)
    for tag, a, b, c, d in matcher.get_opcodes():
        if tag != "equal":
            found += [f"only static: {name}" for name in sides[0][a:b]]
            found += [f"only dynamic: {name}" for name in sides[1][c:d]]
            continue
        for (_, one), (_, other), name in zip(
            static["decisions"][a:b], dynamic["decisions"][c:d], sides[0][a:b], strict=True
        ):
            if bool(one) != bool(other):
                where, why = ("static", one) if one else ("dynamic", other)
                found.append(f"written only if {where}: {name}: {why}")
    return list(dict.fromkeys(found))


def compared(rows: Sequence[Row]) -> str:
    """The differences of every network that has both modes."""
    modes: dict[str, dict[str, Any]] = {}
    for row in rows:
        if row["exit_code"] == 0:
            modes.setdefault(row["network"], {})[row["mode"]] = row
    both = {name: pair for name, pair in modes.items() if len(pair) == len(MODES)}
    lines = {name: differences(*(pair[mode] for mode in MODES)) for name, pair in both.items()}
    alike = sum(not found for found in lines.values())
    told = [
        f"\n{name}:\n" + "\n".join(f"- {one}" for one in lines[name])
        for name in lines
        if lines[name]
    ]
    return "\n".join([f"The same plan with fixed and free sizes: {alike} of {len(both)}.", *told])


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tools.movement.plans",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--only", default="*", metavar="PATTERN", help="networks, as 'bert*'")
    parser.add_argument("--static", action="store_true", help="with all dims bound (the default)")
    parser.add_argument("--dynamic", action="store_true", help="with all dims free")
    parser.add_argument("--timeout", type=float, default=300, metavar="SECONDS")
    parser.add_argument(
        "--resume", action="store_true", help="keep the rows of --json, add the rest"
    )
    parser.add_argument("--json", type=Path, default=Path("build/plans.json"), metavar="FILE")
    parser.add_argument("--one", nargs=2, metavar=("NETWORK", "MODE"), help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def main() -> int:
    """Run what the command line asks for."""
    args = parse()
    if args.one:
        print(json.dumps(planned(*args.one)))
        return 0
    only = [mode for mode in MODES if getattr(args, mode)] or ["static"]

    def row_of(network: str, mode: str) -> Row:
        module = ["tools.movement.plans", "--one", network, mode]
        made = run_module(module, args.timeout)
        return {"network": network, "mode": mode, "revision": revision()} | made

    rows = all_rows(wanted(args.only, only), args.json, args.resume, row_of)
    revisions = sorted({row.get("revision", "unknown") for row in rows})
    print(f"{cpu_name()}; revision {' and '.join(revisions)}; cycles are those of the price.\n")
    print(table(rows))
    if len(only) == len(MODES):
        print(f"\n{compared(rows)}")
    return 0 if all(row["exit_code"] == 0 for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
