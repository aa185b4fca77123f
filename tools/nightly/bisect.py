"""From a regression to the commit that made it: git's bisection, on one case that shows it.

Each commit on the way compiles that case in a checkout of its own. A failure is looked for as it
is. A slowdown is timed in turns with the library of the good commit: a commit is bad if more than
half of the slowdown is there. What cannot be built or told is left out, and the answer is then a
range.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from . import commits
from .cases import Case
from .judge import RUN, Alarm
from .measure import check, status_of
from .sides import Settings, drawn, request
from .stats import MIN_PAIRS, compare, signed_rank

Verdict = bool | None
"""Whether a commit is bad; None if it cannot tell."""

TRIES = 3
SURE = 0.01


@dataclass(frozen=True)
class Found:
    """The first bad commit, and those before it that could not be judged."""

    bad: str
    untold: tuple[str, ...] = ()

    def text(self, root: Path) -> str:
        """``1234567 What it does``, or that it is one of several."""
        one = commits.subject(self.bad, root)
        if not self.untold:
            return one
        others = ", ".join(commit[:9] for commit in self.untold)
        return f"{one} (or one of {others}, which could not be judged)"


def first_bad(line: Sequence[str], is_bad: Callable[[str], Verdict]) -> Found:
    """The first bad commit of a line, whose last one is known to be bad.

    Where a commit cannot be judged its nearest neighbours are asked.
    """
    low, high = 0, len(line) - 1  # the first bad one is among low..high
    known: dict[int, Verdict] = {high: True}

    def ask(k: int) -> Verdict:
        if k not in known:
            known[k] = is_bad(line[k])
        return known[k]

    while low < high:
        middle = (low + high) // 2
        order = sorted(range(low, high), key=lambda k: abs(k - middle))
        told = next((k for k in order if ask(k) is not None), None)
        if told is None:
            break
        if known[told]:
            high = told
        else:
            low = told + 1
    return Found(line[high], tuple(line[low:high]))


def culprit(case: Case, alarm: Alarm, good: str, bad: str, settings: Settings, root: Path) -> Found:
    """The commit after `good`, up to `bad`, that made what `alarm` tells of."""
    with (
        TemporaryDirectory(prefix="tvmext-bisect-") as folder,
        commits.checkouts(root) as checkouts,
    ):
        probe = _Probe(case, alarm, Path(folder), checkouts, settings)
        probe.begin(good, bad)
        return first_bad(commits.between(good, bad, root), probe.is_bad)


class _Probe:
    """One case in one folder; base.so there is the library of the good commit."""

    def __init__(
        self,
        case: Case,
        alarm: Alarm,
        folder: Path,
        checkouts: commits.Checkouts,
        settings: Settings,
    ) -> None:
        self.case, self.alarm, self.folder = case, alarm, folder
        self.checkouts, self.settings = checkouts, settings
        self.what = alarm.what
        self.threshold = 0.0

    def begin(self, good: str, bad: str) -> None:
        """Draw the model; see what is between good and bad: half of the way is the threshold."""
        drawn(self.case, self.folder, self.settings.limit)
        if self.alarm.kind in ("wrong", "failed"):
            if self.is_bad(good):
                raise RuntimeError(f"it fails at {good[:9]} as well")
            return
        first = self._build(good)
        if self.alarm.kind == "larger":
            self.threshold = (first[self.what] + self._build(bad)[self.what]) / 2
            return
        shutil.move(self.folder / "ours.so", self.folder / "base.so")
        self._build(bad)
        logs = self._logs()
        if self.what not in logs:
            self.what = RUN
        self.threshold = compare(logs[self.what]).effect / 2

    def is_bad(self, commit: str) -> Verdict:
        """What this commit makes of the case."""
        row = self._build(commit)
        if self.alarm.kind in ("wrong", "failed"):
            row = row if row["exit_code"] else check(self.folder, self.settings)
            return bool(row["exit_code"])
        if row["exit_code"]:
            return None
        if self.alarm.kind == "larger":
            return bool(row[self.what] > self.threshold) if self.what in row else None
        return self._is_slow()

    def _build(self, commit: str) -> commits.Row:
        made = request(self.case, self.folder, "ours", self.settings)
        if self.what not in ("planned_bytes", "kernels", "movement_left"):
            made.pop("explain", None)
        return commits.build(self.checkouts.of(commit), made, self.settings.limit)

    def _is_slow(self) -> Verdict:
        """Above or below the threshold, whichever can be told."""
        values: list[float] = []
        for _ in range(TRIES):
            values += [x - math.log1p(self.threshold) for x in self._logs().get(self.what, ())]
            if len(values) < MIN_PAIRS:
                continue
            if signed_rank(values) < SURE:
                return True
            if signed_rank([-value for value in values]) < SURE:
                return False
        return None

    def _logs(self) -> dict[str, list[float]]:
        row = check(self.folder, self.settings, again=True)
        if row["exit_code"]:
            raise RuntimeError(f"{self.case.name}: {status_of(row)} {row.get('error', '')}")
        return dict(row["logs"])
