"""A night from its first part to its verdict, within its time."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import zip_longest
from pathlib import Path

from tvmext.arch.cuda import from_device as gpu_of_this_machine
from tvmext.errors import OptionError
from tvmext.measure.host import cpu_name

from ..bench.report import versions
from . import bisect, commits
from .ahead import Ahead
from .cases import ORACLE, Case, in_turn
from .history import History, Result, Run, now
from .judge import LIMITS, Alarm, alarms
from .measure import conformance, left, measured, pick
from .sides import Settings

PARTS = ("oracle", "conformance", "cases")
SHARES = {"oracle": 0.1, "conformance": 0.25}
"""Of the time of a night, at most; the cases get the rest."""

BISECTION = 0.15
"""Of the time is kept for bisections, where they are wanted."""


@dataclass(frozen=True)
class Plan:
    """What the command line asks for. `base` is a commit, "" for none."""

    root: Path
    base: str
    bisect: bool
    minutes: float
    cases: Sequence[Case]
    parts: Sequence[str]
    shard: str
    tests: Sequence[str]
    seconds: float
    limit: float
    under: str


def device(targets: Sequence[str]) -> str:
    """The key of this machine in the history."""
    model = cpu_name().rpartition(", ")[0]  # the rest is what this process may use right now
    gpus = [target for target in targets if target != "llvm"]
    return ", ".join([model, f"{os.cpu_count()} cores", *gpus])


def targets() -> list[str]:
    """What this machine can run: its CPU, and its GPU if it has one."""
    try:
        return ["llvm", f"cuda -arch={gpu_of_this_machine().compute}"]
    except OptionError:
        return ["llvm"]


def spend(plan: Plan, history: History, name: str) -> list[Alarm]:
    """Measure all parts of `plan`, judge and bisect; `name` is the device.

    Results are stored as they come, the alarms and the verdict at the end.
    """
    began = time.monotonic()
    head = commits.commit_of("HEAD", plan.root)
    changed = "" if commits.is_clean(plan.root) else " (changed)"
    subject = commits.subject(head, plan.root) + changed
    number = history.begin(Run(name, head, subject, plan.base, now(), 0.0, versions()))
    cases = in_turn(plan.cases, history.turns(name))
    before = history.before(name, plan.base) if plan.base else {}
    results: list[Result] = []
    with commits.checkouts(plan.root) as others:
        base = others.of(plan.base) if plan.base else None
        settings = Settings(plan.root, base, plan.seconds, plan.limit, plan.under)
        with closing(_parts(plan, settings, cases, began)) as parts:
            for result, figures in parts:
                results.append(result)
                history.keep(number, result)
                tell(result)
                if figures:  # made side by side: nearer than what another night found
                    status, earlier = before.get(result.name, ("", {}))
                    before[result.name] = (status, {**earlier, **figures})
    found = alarms(results, before)
    if plan.bisect and plan.base:
        found = blame(found, plan, head, began + 60 * plan.minutes)
    history.end(number, time.monotonic() - began, found)
    return found


def _parts(
    plan: Plan, settings: Settings, cases: Sequence[Case], began: float
) -> Generator[tuple[Result, dict[str, float]], None, None]:
    """The results in their order, each with the figures of the base, where it was made as well."""
    whole = 60 * plan.minutes
    if "oracle" in plan.parts:
        end = began + SHARES["oracle"] * whole
        for name in ORACLE:
            late = time.monotonic() > end
            yield left(f"oracle/{name}", "no time") if late else pick(name, settings), {}
    if "conformance" in plan.parts:
        for each in conformance(plan.tests, plan.shard, SHARES["conformance"] * whole):
            yield each, {}
    end = began + whole * (1 - BISECTION if plan.bisect else 1)
    if "cases" in plan.parts:
        yield from _cases(cases, settings, end)


def _cases(
    cases: Sequence[Case], settings: Settings, end: float
) -> Iterator[tuple[Result, dict[str, float]]]:
    """The results of the cases until `end`, by the monotonic clock."""
    longest = 0.0
    with Ahead(settings) as ahead:
        for case, after in zip_longest(cases, cases[1:]):
            start = time.monotonic()
            if start + longest > end:
                yield left(case.name, "no time"), {}
                continue
            yield measured(case, ahead.take(case, after), settings)
            ahead.close(case.name)
            longest = max(longest, time.monotonic() - start)


def tell(result: Result) -> None:
    """One line on stderr."""
    shown = ("us", "against_onnxruntime", "pick", "passed", "tests")
    figures = ", ".join(f"{m} {result.figures[m]:.4g}" for m in shown if m in result.figures)
    slow = [f"{what} {100 * c.effect:+.1f} %" for what, c in result.comparisons.items()]
    said = "; ".join(part for part in (figures, " ".join(slow), result.detail[:120]) if part)
    print(f"{result.status:8} {result.name}: {said}", file=sys.stderr, flush=True)


def blame(found: Sequence[Alarm], plan: Plan, head: str, end: float) -> list[Alarm]:
    """The alarms with the commits that made them, one bisection for all of a kind and family.

    Alarms that no case can show again (tests of ONNX, picks), or for which there is no time, keep
    none.
    """
    cases = {case.name: case for case in plan.cases}
    settings = Settings(plan.root, None, plan.seconds, plan.limit, plan.under)
    culprits: dict[tuple[str, str], str] = {}
    blamed = []
    for alarm in found:
        key = alarm.kind, alarm.what
        shown = alarm.name in cases and (alarm.kind != "larger" or alarm.what in LIMITS)
        if key not in culprits and shown and time.monotonic() < end:
            print(f"bisecting {alarm.kind} {alarm.what}: {alarm.name}", file=sys.stderr, flush=True)
            try:
                case = cases[alarm.name]
                one = bisect.culprit(case, alarm, plan.base, head, settings, plan.root)
                culprits[key] = one.text(plan.root)
            except (RuntimeError, KeyError, commits.UnknownCommit) as error:
                print(f"  not found: {error}", file=sys.stderr)
        blamed.append(replace(alarm, culprit=culprits.get(key, "")))
    return blamed


def planned_base(wanted: str, history: History, name: str, root: Path) -> str:
    """The hash of the commit to compare with: the one named, or the last good one; "" for none.

    Raises UnknownCommit if one is named that is not there.
    """
    if wanted:
        return commits.commit_of(wanted, root)
    good = history.last_good(name)
    try:
        return commits.commit_of(good, root) if good else ""
    except commits.UnknownCommit:
        print(f"the last good commit {good} is not in this clone", file=sys.stderr)
        return ""
