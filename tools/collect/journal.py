"""Measurements on disk: a journal of lines, packed into Parquet now and then.

A measurement is a line of JSON, written with one call and flushed to the disk: a kill at any moment
loses the line in flight at most, whose rest is left out when the journal is read. `pack` writes a
new Parquet file beside the journal, renames it, and only then empties the journal; measurements
that are in both, because that was interrupted, count once.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from statistics import median
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tvmext.schedules.cost.terms import FIELDS

Row = Mapping[str, Any]

ONCE: Row = {"sessions": 1, "apart": 0.0}
"""What a measurement that was made once says of how often it was."""

SCHEMA = pa.schema(
    [
        ("key", pa.string()),  # workload, decision, machine and threads
        ("workload", pa.string()),  # measurements of one belong together
        ("spec", pa.string()),
        ("rule", pa.string()),
        ("decision", pa.string()),
        ("picked", pa.bool_()),  # by the analytic price
        ("threads", pa.int32()),
        ("seconds", pa.float64()),  # of one call: the first quartile of samples
        ("least", pa.float64()),
        ("spread", pa.float32()),  # how far `least` is below it
        ("samples", pa.int32()),
        ("noisy", pa.bool_()),
        ("sessions", pa.int32()),  # in which it was measured: `seconds` is their median
        ("apart", pa.float32()),  # logarithm of the longest over the shortest of them
        ("device", pa.string()),
        ("arch", pa.string()),
        ("versions", pa.string()),
        ("features", pa.int32()),  # VERSION of the terms below
        ("date", pa.string()),
        *((name, pa.float64()) for name in FIELDS),
    ]
)


class Journal:
    """The measurements in a folder."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.path = folder / "journal.jsonl"
        self._mend()
        self._file = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)

    def add(self, row: Row) -> None:
        os.write(self._file, (json.dumps(row) + "\n").encode())
        os.fdatasync(self._file)

    def keys(self) -> set[str]:
        """What has been measured."""
        return {row["key"] for row in self.rows()}

    def rows(self) -> Iterator[Row]:
        """Every measurement, those in Parquet files first; one key may come twice."""
        for path in sorted(self.folder.glob("*.parquet")):
            yield from pq.read_table(path).to_pylist()
        yield from lines(self.path)

    def pack(self, path: Path | None = None) -> int:
        """Move the journal into a Parquet file of the folder; or copy everything to `path`."""
        found = latest(self.rows() if path else lines(self.path))
        if not found:
            return 0
        number = len(list(self.folder.glob("*.parquet")))
        write(list(found.values()), path or self.folder / f"part-{number:05}.parquet")
        if path is None:
            os.truncate(self.path, 0)
        return len(found)

    def close(self) -> None:
        os.close(self._file)

    def _mend(self) -> None:
        """Cut off a line that was not finished: the next one would be appended to it."""
        if not self.path.exists():
            return
        content = self.path.read_bytes()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            os.truncate(self.path, whole)


def latest(rows: Iterable[Row]) -> dict[str, Row]:
    """By their keys, of each the last one."""
    return {row["key"]: row for row in rows}


def joined(sessions: Iterable[Mapping[str, Row]]) -> list[Row]:
    """Measurements of several sessions: of those of one key that are not noisy, if any, the median.

    Where memory lies differs from one process to the next, and with it the time of a call. That a
    session was slower than others as a whole tells nothing of the candidates of a workload, which
    took turns: they are brought to the level that the workload has in the median of sessions.
    """
    workloads: dict[tuple[Any, ...], list[dict[str, Row]]] = {}
    for number, session in enumerate(sessions):
        for key, row in session.items():
            owner = tuple(row.get(name) for name in ("workload", "arch", "device", "threads"))
            own = workloads.setdefault(owner, [])
            own += [{} for _ in range(number + 1 - len(own))]
            own[number][key] = row
    found: dict[str, list[Row]] = {}
    for own in workloads.values():
        for session in _levelled([session for session in own if session]):
            for key, row in session.items():
                found.setdefault(key, []).append(row)
    return [_median(rows) for rows in found.values()]


def _levelled(sessions: list[dict[str, Row]]) -> list[dict[str, Row]]:
    """Sessions of one workload at one level: the times of each over those of all, in the median."""
    clean = [{k: row["seconds"] for k, row in s.items() if not row["noisy"]} for s in sessions]
    times: dict[str, list[float]] = {}
    for session in clean:
        for key, seconds in session.items():
            times.setdefault(key, []).append(seconds)
    usual = {key: median(own) for key, own in times.items() if len(own) > 1}
    shares = [[own[key] / usual[key] for key in own.keys() & usual.keys()] for own in clean]
    levels = [median(own) if own else 1.0 for own in shares]
    middle = median(levels)
    return [
        {key: _scaled(row, middle / level) for key, row in session.items()}
        for session, level in zip(sessions, levels)
    ]


def _scaled(row: Row, factor: float) -> Row:
    return {**row, **{name: row[name] * factor for name in ("seconds", "least")}}


def _median(rows: list[Row]) -> Row:
    """The row of median seconds, the shorter one of two in the middle."""
    clean = [row for row in rows if not row["noisy"]] or rows
    ordered = sorted(clean, key=lambda row: float(row["seconds"]))
    one = {**ONCE, **ordered[(len(ordered) - 1) // 2]}
    if len(ordered) > 1:
        one["sessions"] = sum(row.get("sessions", 1) for row in ordered)
        one["apart"] = math.log(ordered[-1]["seconds"] / ordered[0]["seconds"])
    return one


def lines(path: Path) -> Iterator[Row]:
    """The whole lines of a journal."""
    if not path.exists():
        return
    for line in path.read_bytes().split(b"\n")[:-1]:
        with suppress(ValueError):  # a page that never reached the disk
            yield json.loads(line)


def write(rows: list[Row], path: Path) -> None:
    """A Parquet file, by way of a temporary one."""
    # columns and terms that came later
    usual = {**ONCE, **{name: field.default for name, field in FIELDS.items()}}
    columns = {name: [{**usual, **row}[name] for row in rows] for name in SCHEMA.names}
    unfinished = path.with_name(f".{path.name}.tmp")
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns, SCHEMA), unfinished, compression="zstd")
    os.replace(unfinished, path)
