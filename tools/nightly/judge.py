"""From the results of a night to its alarms: what became worse than it was at the last good commit.

Times are judged by paired comparisons (stats.py). What is the same in every run, such as bytes, has
thresholds against noise of no kind, only against pettiness. A case that failed before is no news.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .stats import Comparison, holm, slower

if TYPE_CHECKING:
    from .history import Result

RUN = "run"


@dataclass(frozen=True)
class Alarm:
    """What became worse. `kind`: wrong, failed, slower, or larger; `what` names the metric or the
    kernel family; `culprit` is the commit that a bisection blames, "" if there was none."""

    name: str
    kind: str
    what: str
    detail: str
    culprit: str = ""


@dataclass(frozen=True)
class Limit:
    """From which growth on a metric is worse: by a part of it, and by an amount."""

    part: float
    amount: float
    text: str


LIMITS: Mapping[str, Limit] = {
    "library_bytes": Limit(0.02, 4096, "bytes of the library"),
    "planned_bytes": Limit(0.02, 4096, "bytes of planned memory"),
    "peak_bytes": Limit(0.15, 8 << 20, "bytes that a run takes at most"),
    "compiler_bytes": Limit(0.15, 64 << 20, "bytes that the compiler takes"),
    "movement_left": Limit(0.0, 1, "kernels left that only move data"),
    "kernels": Limit(0.02, 2, "kernels"),
    "compile_seconds": Limit(0.25, 1.0, "processor seconds of compiling"),
}
"""By the name of a figure; of the others less may be better, or they are told by comparisons."""

LEAST_PICK = 0.05
"""A pick of the price that loses more of the best tile's speed than it did, by more than this."""


def alarms(
    results: Iterable[Result], before: Mapping[str, tuple[str, Mapping[str, float]]]
) -> list[Alarm]:
    """What is worse than `before`, the (status, figures) of each case at the base."""
    results = list(results)
    found = [*failures(results, before), *slowdowns(results)]
    for result in results:
        found += growth(result, before.get(result.name, ("", {}))[1])
    return found


def failures(
    results: Iterable[Result], before: Mapping[str, tuple[str, Mapping[str, float]]]
) -> list[Alarm]:
    """Cases that did not pass; not those that failed at the base in the same way."""
    return [
        Alarm(each.name, "wrong" if each.status == "wrong" else "failed", each.status, each.detail)
        for each in results
        if each.status not in ("passed", "left")
        and before.get(each.name, ("", {}))[0] != each.status
    ]


def slowdowns(results: Iterable[Result]) -> list[Alarm]:
    """Comparisons that hold among all others of the night and in fresh processes.

    A case is named once: after the family whose kernels became slower, else the family that adds
    the most to its run.
    """
    by_key = {
        (result.name, what): (result, comparison)
        for result in results
        for what, comparison in result.comparisons.items()
        if not comparison.noisy
    }
    chances = {
        (name, what): slower(comparison, result.again.get(what, []))
        for (name, what), (result, comparison) in by_key.items()
    }
    worst: dict[str, list[str]] = {}
    for name, what in holm(chances):
        worst.setdefault(name, []).append(what)
    found = []
    for name, whats in worst.items():
        result = by_key[name, whats[0]][0]
        families = [what for what in whats if what != RUN] or [blamed(result)]
        for family in families:
            what = family if family in result.comparisons else RUN
            found.append(Alarm(name, "slower", family, told(what, result.comparisons[what])))
    return found


def blamed(result: Result) -> str:
    """The family that takes the most microseconds more than at the base; "run" if none is known."""
    ours, base = (result.families.get(side, {}) for side in ("ours", "base"))
    added = {name: spent - base.get(name, 0.0) for name, spent in ours.items()}
    return max(added, key=lambda name: added[name]) if added else RUN


def told(what: str, comparison: Comparison) -> str:
    """``kernels of softmax take 10.2 % longer (9.8 to 10.6)``."""
    subject = "a run takes" if what == RUN else f"kernels of {what} take"
    effect, low, high = (100 * x for x in (comparison.effect, comparison.low, comparison.high))
    return f"{subject} {effect:.1f} % longer ({low:.1f} to {high:.1f}, {comparison.pairs} pairs)"


def growth(result: Result, before: Mapping[str, float]) -> list[Alarm]:
    """Figures that grew beyond their limits, and a pick that became worse."""
    found = []
    for metric, limit in LIMITS.items():
        if metric not in result.figures or metric not in before:
            continue
        new, old = result.figures[metric], before[metric]
        if beyond(metric, new, old):
            numbers = f"{_number(old)} -> {_number(new)}"
            found.append(Alarm(result.name, "larger", metric, f"{limit.text}: {numbers}"))
    new, old = (figures.get("pick", 1.0) for figures in (result.figures, before))
    if new < old - LEAST_PICK:
        detail = f"the picked tile has {new:.2f} of the best one's speed, had {old:.2f}"
        found.append(Alarm(result.name, "slower", "pick", detail))
    return found


def beyond(metric: str, new: float, old: float) -> bool:
    """Whether a figure grew by more than its limit."""
    limit = LIMITS[metric]
    return new - old >= limit.amount and new > old * (1 + limit.part)


def _number(value: float) -> str:
    return f"{value:,.0f}" if value == int(value) else f"{value:.2f}"
