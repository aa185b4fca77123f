"""The command line: ``python -m tools.train fit | judge | report | speed | networks``."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import xgboost

from tvmext.schedules.cost.features import features
from tvmext.schedules.cost.model import CostModel, Learned
from tvmext.schedules.cost.terms import FAMILIES, Terms
from tvmext.schedules.cost.weights import SHIPPED, read, write

from .data import Data, by_machine, families, folds, load
from .fit import fit
from .judge import Verdict, judge, text
from .settings import Settings

FOLDS = 5


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tools.train", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for name, run, said in (
        ("fit", _fit, "weights from all of a data set"),
        ("judge", _judge, "tables for workloads, and families, that were held out"),
        ("report", _report, "the same with pictures, as HTML and PNG"),
        ("speed", _speed, "candidates per second on one core"),
    ):
        part = commands.add_parser(name, help=said)
        part.add_argument("data", type=Path, help="a Parquet file of tools.collect")
        part.add_argument("--seed", type=int, default=0)
        part.add_argument("-o", "--output", type=Path, default=SHIPPED / "cpu.json")
        part.set_defaults(run=run)
    part = commands.add_parser("networks", help="the zoo: learned, analytic, TVM's own")
    part.add_argument("--only", default="*", metavar="PATTERN", help="networks, as 'bert*'")
    part.add_argument("--seconds", type=float, default=6, help="to time one for; 0: compile")
    part.add_argument("--compile-seconds", type=float, default=0, help="to compile again for")
    part.add_argument("--libraries", type=Path, metavar="FOLDER", help="kept, and used again")
    part.add_argument("--cost-model", default="learned", help="or a file of weights")
    part.add_argument("--timeout", type=float, default=600, metavar="SECONDS")
    part.add_argument("--resume", action="store_true", help="keep the rows of --json, add the rest")
    part.add_argument("--json", type=Path, default=Path("build/cost-model.json"), metavar="FILE")
    part.set_defaults(run=_networks)
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command."""
    args = parse(arguments)
    args.run(args)
    return 0


def _fit(args: argparse.Namespace) -> None:
    data, settings = load(args.data), Settings(seed=args.seed)
    origin: dict[str, Any] = {
        "data_sha256": data.sha256,
        "rows": len(data.seconds),
        "workloads": len(set(data.group.tolist())),
        "settings": asdict(settings),
        "xgboost": xgboost.__version__,
    }
    verdicts = judge(data, held_out(data, settings))
    print(text(verdicts))
    gains = {name for name, one in verdicts.items() if one.pick > one.analytic}
    origin["families"] = [name for name, _ in families(data) if name in gains]
    args.output.parent.mkdir(parents=True, exist_ok=True)
    write(only(fit(data, settings), origin["families"]), args.output, "cpu", origin)
    print(f"{args.output}: {args.output.stat().st_size} bytes; {origin}")


def only(model: Learned, names: Sequence[str]) -> Learned:
    """The model for families where picks gain on workloads that were held out; others stay
    analytic."""
    kept = [*names, *(["winograd"] if "conv" in names else [])]
    known = [name in kept for name in FAMILIES]
    return replace(model, offsets=np.where(known, model.offsets, np.nan))


def held_out(data: Data, settings: Settings) -> list[tuple[CostModel, np.ndarray]]:
    """A model for each fold, and the rows that it did not see."""
    return [(fit(data.where(seen), settings), held) for seen, held in folds(data, FOLDS, 0)]


def _judge(args: argparse.Namespace) -> None:
    data, settings = load(args.data), Settings(seed=args.seed)
    print(f"{len(data.seconds)} rows, workloads held out, {FOLDS} folds\n")
    models = held_out(data, settings)
    print(text(judge(data, models)), end="\n\n")
    if len(data.machines) > 1:
        for name, verdicts in on_each_machine(data, models):
            print(f"{name} of these\n\n{text(verdicts)}", end="\n\n")
    print("families held out\n")
    print(text(judge(data, families_held_out(data, settings))))
    if len(data.machines) > 1:
        print("\nmachines held out\n")
        for name, model, rows in machines_held_out(data, settings):
            print(name, text(judge(data, [(model, rows)])), sep="\n", end="\n\n")


def on_each_machine(
    data: Data, models: Sequence[tuple[CostModel, np.ndarray]]
) -> Iterator[tuple[str, dict[str, Verdict]]]:
    """How good models of all machines are on each, for the rows that they did not see."""
    for name, rows in by_machine(data):
        yield name, judge(data, [(model, np.intersect1d(held, rows)) for model, held in models])


def families_held_out(data: Data, settings: Settings) -> list[tuple[CostModel, object]]:
    """For each family a model of all others; it has to do no harm there."""
    found = []
    for _, rows in families(data):
        others = [r for r in range(len(data.seconds)) if data.family[r] != data.family[rows[0]]]
        found.append((fit(data.where(others), settings), rows))
    return found


def machines_held_out(
    data: Data, settings: Settings
) -> Iterator[tuple[str, CostModel, np.ndarray]]:
    """For each kind of machine a model of what was measured on the others, and its rows."""
    for name, rows in by_machine(data):
        others = np.flatnonzero(data.machine != data.machine[rows[0]])
        yield name, fit(data.where(others), settings), rows


def _report(args: argparse.Namespace) -> None:
    from .report import report

    data, settings = load(args.data), Settings(seed=args.seed)
    print(report(data, settings, args.output if args.output.is_dir() else Path("build/cost")))


def _networks(args: argparse.Namespace) -> None:
    from .networks import table

    print(table(args))


def _speed(args: argparse.Namespace) -> None:
    """Of features alone, and of features and forest together."""
    data = load(args.data)
    many = Terms.joined([data.terms] * (1 + 100_000 // data.terms.count))
    model: Learned = read(args.output)
    for name, run in (("features", features), ("prices", model.seconds)):
        run(many)
        start = time.process_time()
        run(many)
        took = time.process_time() - start
        print(f"{name}: {many.count / took:,.0f} candidates per second of one core")


if __name__ == "__main__":
    sys.exit(main())
