"""Figures of a night and of all nights, as the pages show them."""

from __future__ import annotations

import math
import statistics
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from tvmext.measure.samples import geometric_mean

from .history import BAD, GOOD, UNFINISHED, History, Result
from .judge import RUN, Alarm

RIVAL = "against_onnxruntime"
LEAST = "least_against_onnxruntime"
VERDICTS = {
    GOOD: "nothing became worse",
    BAD: "something became worse",
    UNFINISHED: "the night did not end",
}
Series = Mapping[str, Sequence[tuple[int, float]]]
"""Of each case, (number of the run, value)."""


@dataclass(frozen=True)
class Trend:
    """One figure over the nights: (number of the run, value), and how a value is written.

    `good` says in which direction it becomes better: 1 up, -1 down.
    """

    title: str
    told: str
    points: tuple[tuple[int, float], ...]
    text: Callable[[float], str]
    good: int


@dataclass(frozen=True)
class Group:
    """Alarms of one kind and one family or metric, which one change most likely made."""

    kind: str
    what: str
    alarms: tuple[Alarm, ...]

    @property
    def culprits(self) -> list[str]:
        return list(dict.fromkeys(alarm.culprit for alarm in self.alarms if alarm.culprit))

    @property
    def title(self) -> str:
        """``slower: softmax, 3 cases``."""
        count = len(self.alarms)
        what = "" if self.what == self.kind else f": {self.what}"
        return f"{self.kind}{what}, {count} case{'s' * (count > 1)}"


def grouped(alarms: Iterable[Alarm]) -> list[Group]:
    """The alarms by kind and family, those of most cases first."""
    found: dict[tuple[str, str], list[Alarm]] = defaultdict(list)
    for alarm in alarms:
        found[alarm.kind, alarm.what].append(alarm)
    made = [Group(*key, tuple(group)) for key, group in found.items()]
    return sorted(made, key=lambda group: -len(group.alarms))


def statuses(results: Iterable[Result]) -> Counter[str]:
    return Counter(result.status for result in results)


def rivals(results: Iterable[Result]) -> dict[str, tuple[float, float, int]]:
    """Part or family -> (geometric mean and least of ONNX Runtime / ours, by minima, cases)."""
    found: dict[str, list[float]] = defaultdict(list)
    for result in results:
        if LEAST in result.figures:
            found[family(result.name)].append(result.figures[LEAST])
    return {name: (geometric_mean(v), min(v), len(v)) for name, v in found.items()}


def family(name: str) -> str:
    """``networks, static`` or ``operators: gemm``."""
    part, _, rest = name.partition("/")
    if part == "zoo":
        return f"networks, {rest.split()[1]}"
    return f"operators: {rest.partition('/')[0]}"


def smallest(results: Sequence[Result]) -> list[float]:
    """The least slowdown that each comparison of a run would show."""
    runs = [r.comparisons[RUN] for r in results if RUN in r.comparisons]
    return sorted(run.smallest for run in runs if not run.noisy)


def faster(results: Iterable[Result]) -> list[tuple[str, float]]:
    """Cases whose runs are certainly at least a twentieth shorter than at the base."""
    found = [
        (result.name, result.comparisons[RUN].effect)
        for result in results
        if RUN in result.comparisons
        and not result.comparisons[RUN].noisy
        and result.comparisons[RUN].high < -0.05
    ]
    return sorted(found, key=lambda item: item[1])


def trends(history: History, device: str) -> list[Trend]:
    """What a dashboard draws; only figures that there are."""

    def series(metric: str, part: str = "") -> Series:
        found = history.series(device, metric)
        return {name: points for name, points in found.items() if name.startswith(part)}

    def over(
        metric: str, part: str, mean: Callable[[Sequence[float]], float]
    ) -> tuple[tuple[int, float], ...]:
        return by_run(filled(series(metric, part), runs), mean)

    ratio = "{:.2f}".format
    relative = "{:.2f}x".format
    runs = [number for number, _ in history.runs(device)]
    passed = shares(series("passed"), series("tests"))
    found = [
        Trend(
            "Networks against ONNX Runtime",
            "its time / ours, geometric mean of minima",
            over(LEAST, "zoo/", geometric_mean),
            ratio,
            1,
        ),
        Trend(
            "Operators against ONNX Runtime",
            "its time / ours, geometric mean of minima",
            over(LEAST, "ops/", geometric_mean),
            ratio,
            1,
        ),
        *(
            Trend(
                title,
                "of what each case usually takes",
                usual(filled(series(metric), runs)),
                relative,
                -1,
            )
            for title, metric in (
                ("Compile time", "compile_seconds"),
                ("Size of libraries", "library_bytes"),
                ("Planned memory", "planned_bytes"),
                ("Peak memory of a run", "peak_bytes"),
                ("Memory of the compiler", "compiler_bytes"),
            )
        ),
        Trend(
            "Movement kernels left",
            "sum over networks",
            over("movement_left", "", math.fsum),
            "{:.0f}".format,
            -1,
        ),
        Trend(
            "Picks of the cost model",
            "part of the best tile\u2019s speed",
            over("pick", "", geometric_mean),
            ratio,
            1,
        ),
        Trend("ONNX\u2019s own tests", "part that passes", passed, "{:.1%}".format, 1),
    ]
    return [trend for trend in found if trend.points]


def filled(series: Series, runs: Sequence[int]) -> Series:
    """A value in every run, the last known one or else the first: means over the same cases."""
    made = {}
    for name, points in series.items():
        known, value, line = dict(points), points[0][1], []
        for run in runs:
            value = known.get(run, value)
            line.append((run, value))
        made[name] = line
    return made


def by_run(
    series: Series, mean: Callable[[Sequence[float]], float]
) -> tuple[tuple[int, float], ...]:
    """The mean over the cases of each run."""
    found: dict[int, list[float]] = defaultdict(list)
    for points in series.values():
        for run, value in points:
            found[run].append(value)
    return tuple((run, mean(found[run])) for run in sorted(found))


def usual(series: Series) -> tuple[tuple[int, float], ...]:
    """Each case over its own median, so that runs of different cases compare."""
    scaled: dict[str, list[tuple[int, float]]] = {}
    for name, points in series.items():
        middle = statistics.median(value for _, value in points)
        if middle > 0:
            scaled[name] = [(run, value / middle) for run, value in points if value > 0]
    return by_run(scaled, geometric_mean)


def shares(part: Series, whole: Series) -> tuple[tuple[int, float], ...]:
    """The sum of one over the sum of the other, by run."""
    sums = [dict(by_run(each, math.fsum)) for each in (part, whole)]
    return tuple((run, sums[0].get(run, 0.0) / total) for run, total in sums[1].items() if total)
