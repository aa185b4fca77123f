"""What past nights found, in SQLite: one file in a folder, keyed by device and commit.

A row is a case in a run, whatever came of it; its figures are numbers by name. Comparisons with the
last good commit have rows of their own, and so have alarms.
"""

from __future__ import annotations

import json
import math
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from .judge import Alarm
from .stats import Comparison

FILE = "nightly.sqlite"
SCHEMA = """
CREATE TABLE IF NOT EXISTS runs (
  id INTEGER PRIMARY KEY, device TEXT NOT NULL, hash TEXT NOT NULL, subject TEXT NOT NULL,
  base TEXT NOT NULL, started TEXT NOT NULL, seconds REAL NOT NULL, versions TEXT NOT NULL,
  verdict TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS results (
  run INTEGER NOT NULL REFERENCES runs, name TEXT NOT NULL, status TEXT NOT NULL,
  detail TEXT NOT NULL, PRIMARY KEY (run, name));
CREATE TABLE IF NOT EXISTS figures (
  run INTEGER NOT NULL REFERENCES runs, name TEXT NOT NULL, metric TEXT NOT NULL,
  value REAL NOT NULL, PRIMARY KEY (run, name, metric));
CREATE TABLE IF NOT EXISTS comparisons (
  run INTEGER NOT NULL REFERENCES runs, name TEXT NOT NULL, what TEXT NOT NULL,
  effect REAL NOT NULL, low REAL NOT NULL, high REAL NOT NULL, p REAL NOT NULL,
  pairs INTEGER NOT NULL, spread REAL NOT NULL, PRIMARY KEY (run, name, what));
CREATE TABLE IF NOT EXISTS alarms (
  run INTEGER NOT NULL REFERENCES runs, name TEXT NOT NULL, kind TEXT NOT NULL,
  what TEXT NOT NULL, detail TEXT NOT NULL, culprit TEXT NOT NULL);
"""

GOOD, BAD, UNFINISHED = "good", "bad", "unfinished"
"""Verdicts of a night."""

PASSED, LEFT = "passed", "left"
"""Statuses of a result; the others say how it failed. What is left had no time."""


@dataclass
class Result:
    """One case of a run. `status`: passed, wrong, failed, crashed, timeout or left."""

    name: str
    status: str
    detail: str = ""
    figures: dict[str, float] = field(default_factory=dict)
    comparisons: dict[str, Comparison] = field(default_factory=dict)
    again: dict[str, list[Comparison]] = field(default_factory=dict)
    """Comparisons that were suspicious, repeated in fresh processes. Not kept."""
    families: dict[str, dict[str, float]] = field(default_factory=dict)
    """Microseconds of each rule's kernels, by side. Of ours they are kept as figures."""


@dataclass(frozen=True)
class Run:
    """A night. `base` is the commit that it was compared with, "" for none."""

    device: str
    commit: str
    subject: str
    base: str
    started: str
    seconds: float
    versions: Mapping[str, str]
    verdict: str = UNFINISHED


class History:
    """The file in `folder`, which is made if it is not there."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / FILE
        self._data = sqlite3.connect(self.path)
        self._data.executescript(SCHEMA)

    def close(self) -> None:
        self._data.close()

    def begin(self, run: Run) -> int:
        """Open a night, which is unfinished until `end`; returns its number."""
        values = (run.device, run.commit, run.subject, run.base, run.started, run.seconds)
        with self._data as data:
            number = data.execute(
                "INSERT INTO runs VALUES (NULL, ?, ?, ?, ?, ?, ?, ?, ?)",
                (*values, json.dumps(dict(run.versions)), UNFINISHED),
            ).lastrowid
        assert number is not None
        return number

    def keep(self, number: int, result: Result) -> None:
        """Add a result to a night, at once and whole: it outlives an interruption."""
        name = result.name
        with self._data as data:
            data.execute(
                "INSERT OR REPLACE INTO results VALUES (?, ?, ?, ?)",
                (number, name, result.status, result.detail),
            )
            data.executemany(
                "INSERT OR REPLACE INTO figures VALUES (?, ?, ?, ?)",
                [(number, name, *figure) for figure in result.figures.items()],
            )
            data.executemany(
                "INSERT OR REPLACE INTO comparisons VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                [
                    (number, name, what, c.effect, c.low, c.high, c.p, c.pairs, c.spread)
                    for what, c in result.comparisons.items()
                    if not c.noisy
                ],
            )

    def end(self, number: int, seconds: float, alarms: Sequence[Alarm]) -> None:
        """Close a night, with its alarms: it was good if there are none."""
        with self._data as data:
            data.executemany(
                "INSERT INTO alarms VALUES (?, ?, ?, ?, ?, ?)",
                [(number, a.name, a.kind, a.what, a.detail, a.culprit) for a in alarms],
            )
            data.execute(
                "UPDATE runs SET seconds = ?, verdict = ? WHERE id = ?",
                (seconds, BAD if alarms else GOOD, number),
            )

    def last_good(self, device: str) -> str | None:
        """The commit of a device's last night without an alarm; else of its first night."""
        found = self._data.execute(
            "SELECT hash FROM runs WHERE device = ? "
            "ORDER BY verdict = 'good' DESC, CASE verdict WHEN 'good' THEN -id ELSE id END LIMIT 1",
            (device,),
        ).fetchone()
        return found[0] if found else None

    def turns(self, device: str) -> dict[str, int]:
        """In which run each case was measured last."""
        found = self._data.execute(
            "SELECT name, MAX(run) FROM results JOIN runs ON runs.id = run "
            "WHERE device = ? AND status != ? GROUP BY name",
            (device, LEFT),
        )
        return dict(found)

    def before(self, device: str, commit: str) -> dict[str, tuple[str, dict[str, float]]]:
        """(status, figures) of each case, as last measured on a device at a commit."""
        latest = (
            "SELECT name, MAX(run) AS run FROM results JOIN runs ON runs.id = run "
            "WHERE device = ? AND hash = ? AND status != ? GROUP BY name"
        )
        given = (device, commit, LEFT)
        found: dict[str, tuple[str, dict[str, float]]] = {
            name: (status, {})
            for name, status in self._data.execute(
                f"SELECT name, status FROM ({latest}) JOIN results USING (run, name)", given
            )
        }
        for name, metric, value in self._data.execute(
            f"SELECT name, metric, value FROM ({latest}) JOIN figures USING (run, name)", given
        ):
            found[name][1][metric] = value
        return found

    def runs(self, device: str) -> list[tuple[int, Run]]:
        """All nights of a device, oldest first."""
        rows = self._data.execute(
            "SELECT id, device, hash, subject, base, started, seconds, versions, verdict "
            "FROM runs WHERE device = ? ORDER BY id",
            (device,),
        )
        return [(row[0], Run(*row[1:7], json.loads(row[7]), row[8])) for row in rows]

    def series(self, device: str, metric: str) -> dict[str, list[tuple[int, float]]]:
        """(run, value) of a metric by case, oldest first."""
        found: dict[str, list[tuple[int, float]]] = {}
        for name, run, value in self._data.execute(
            "SELECT name, run, value FROM figures JOIN runs ON runs.id = run "
            "WHERE device = ? AND metric = ? ORDER BY run",
            (device, metric),
        ):
            found.setdefault(name, []).append((run, value))
        return found

    def results(self, run: int) -> list[Result]:
        """The cases of a night with their figures and comparisons."""
        found = {
            name: Result(name, status, detail)
            for name, status, detail in self._data.execute(
                "SELECT name, status, detail FROM results WHERE run = ? ORDER BY rowid", (run,)
            )
        }
        for name, metric, value in self._data.execute(
            "SELECT name, metric, value FROM figures WHERE run = ?", (run,)
        ):
            found[name].figures[metric] = value
        for name, what, *numbers in self._data.execute(
            "SELECT name, what, effect, low, high, p, pairs, spread FROM comparisons WHERE run = ?",
            (run,),
        ):
            found[name].comparisons[what] = Comparison(*numbers)
        return list(found.values())

    def alarms(self, run: int) -> list[Alarm]:
        """The alarms of a night."""
        rows = self._data.execute(
            "SELECT name, kind, what, detail, culprit FROM alarms WHERE run = ? ORDER BY rowid",
            (run,),
        )
        return [Alarm(*row) for row in rows]


def now() -> str:
    """The time in UTC, to the second."""
    return datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M:%S")


def plain(value: Any) -> float | None:
    """A finite number, or None for what is none."""
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None
