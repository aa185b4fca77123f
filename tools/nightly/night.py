"""A night from its first part to its verdict, within its time."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tvmext.arch.cuda import from_device as gpu_of_this_machine
from tvmext.errors import OptionError
from tvmext.measure.host import cpu_name

from ..bench.report import versions
from . import bisect, commits
from .cases import ORACLE, Case, in_turn
from .history import History, Result, Run, now
from .judge import LIMITS, Alarm, alarms
from .measure import Settings, conformance, left, measured, pick

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


@dataclass(frozen=True)
class Night:
    """What came of it."""

    run: Run
    results: list[Result]
    alarms: list[Alarm]


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


def spend(plan: Plan, history: History, name: str) -> Night:
    """Measure all parts of `plan`, judge, bisect; nothing is stored yet. `name` is the device."""
    started, began = now(), time.monotonic()
    end = began + 60 * plan.minutes
    with commits.checkouts(plan.root) as others:
        base = others.of(plan.base) if plan.base else None
        settings = Settings(plan.root, base, plan.seconds, plan.limit, plan.under)
        results, before = _parts(plan, settings, history, name, began)
    found = alarms(results, before)
    head = commits.commit_of("HEAD", plan.root)
    if plan.bisect and plan.base:
        found = blame(found, plan, head, end)
    run = Run(
        name,
        head,
        commits.subject(head, plan.root) + ("" if commits.is_clean(plan.root) else " (changed)"),
        plan.base,
        started,
        time.monotonic() - began,
        versions(),
        "bad" if found else "good",
    )
    return Night(run, results, found)


def _parts(
    plan: Plan, settings: Settings, history: History, name: str, began: float
) -> tuple[list[Result], dict[str, tuple[str, dict[str, float]]]]:
    """The results, and what they are judged against: (status, figures) at the base by case."""
    whole = 60 * plan.minutes
    before = history.before(name, plan.base) if plan.base else {}
    results: list[Result] = []
    if "oracle" in plan.parts:
        end = began + SHARES["oracle"] * whole
        for case_name in ORACLE:
            late = time.monotonic() > end
            results.append(
                left(f"oracle/{case_name}", "no time") if late else pick(case_name, settings)
            )
            tell(results[-1])
    if "conformance" in plan.parts:
        found = list(conformance(plan.tests, plan.shard, SHARES["conformance"] * whole))
        results += found
        for each in found:
            tell(each)
    end = began + whole * (1 - BISECTION if plan.bisect else 1)
    longest = 0.0
    for case in in_turn(plan.cases, history.turns(name)) if "cases" in plan.parts else ():
        now = time.monotonic()
        if now + longest > end:
            results.append(left(case.name, "no time"))
            continue
        result, base = measured(case, settings)
        results.append(result)
        longest = max(longest, time.monotonic() - now)
        if base:  # made side by side: nearer than what another night found
            status, figures = before.get(case.name, ("", {}))
            before[case.name] = (status, {**figures, **base})
        tell(result)
    return results, before


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
