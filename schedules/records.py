"""Decisions by measurement: records of `tvmext tune`, and which of them decide for a kernel.

A record says how long a kernel took with a decision, on which machine and with which versions. It
decides only where all of that is the same; and what is taken is always a decision that the rule
lists itself, the one that reads like the recorded: a file of records can make code slower, never
wrong. Records are lines of JSON, appended one at a time.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import tvm
import tvm_ffi

import tvmext
from tvmext.arch import Arch
from tvmext.errors import OptionError

from .choices import Choices
from .cost.terms import VERSION
from .rule import Kernel, Rule
from .select import plain

FORMAT = 1
MOST_BYTES = 100_000_000

LEAST_GAIN = 0.02
"""What a decision has to gain, as a share of the time, to be taken in place of the rule's own."""

FIELDS = {"workload": str, "rule": str, "seconds": float, "machine": str, "versions": dict}
"""What a record has to have, beside its "decision"."""


def workload_of(kernel: Kernel, rule: Rule) -> str:
    """What kernels have in common that a rule schedules alike: their code and constant operands."""
    code = tvm_ffi.structural_hash(kernel.func)
    return _digest([f"{code:x}", sorted(kernel.constant_args), rule.name])


def machine_of(arch: Arch) -> str:
    """A digest of all that is known of a machine."""
    fields = asdict(arch).items()
    return _digest({k: sorted(v) if isinstance(v, frozenset) else v for k, v in fields})


def versions() -> dict[str, Any]:
    """What measurements of a kernel depend on beside the machine."""
    return {"tvm": tvm.__version__, "tvmext": tvmext.__version__, "features": VERSION}


def _digest(value: Any) -> str:
    text = json.dumps(value, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Records:
    """Measurements by workload, and `ignored`: why which lines of their file are none."""

    rows: Mapping[str, Sequence[Mapping[str, Any]]]
    ignored: tuple[str, ...] = ()

    @staticmethod
    def of(lines: Iterable[str]) -> Records:
        rows: dict[str, list[Mapping[str, Any]]] = {}
        ignored = []
        for number, line in enumerate(lines, 1):
            row = _row(line)
            if isinstance(row, str):
                ignored.append(f"line {number}: {row}")
            else:
                rows.setdefault(row["workload"], []).append(row)
        return Records(rows, tuple(ignored))

    def ignored_text(self) -> str:
        """How many lines are no records, and what is wrong with the first."""
        count = len(self.ignored)
        return f"{count} line{'s are' if count > 1 else ' is'} left out; {self.ignored[0]}"

    def fitting(self, workload: str, arch: Arch) -> list[Mapping[str, Any]] | str:
        """The records of a workload on this machine, or why there are none."""
        rows = self.rows.get(workload, ())
        if not rows:
            return "not measured"
        here = [row for row in rows if row["machine"] == machine_of(arch)]
        if not here:
            device = str(rows[-1].get("device", "unknown"))
            return f"measured on another machine, {device[:60]}"
        now = [row for row in here if row["versions"] == versions()]
        return now or f"measured with other versions, {_versions_text(here[-1]['versions'])}"


def _row(line: str) -> Mapping[str, Any] | str:
    try:
        row = json.loads(line)
    except ValueError:
        return "not JSON"
    if not isinstance(row, dict) or row.get("record") != FORMAT:
        return "not a record"
    wrong = [n for n, kind in FIELDS.items() if not isinstance(row.get(n), kind)]
    if wrong or "decision" not in row or not row["seconds"] > 0:
        return f"a record without {', '.join(wrong) or 'a decision or a time'}"
    return row


def _versions_text(found: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in sorted(found.items()))


@lru_cache(maxsize=4)
def read(path: Path) -> Records:
    """The records in a file. Raises OptionError for one that cannot be read."""
    try:
        if path.stat().st_size > MOST_BYTES:
            raise OptionError(f"records {path}: larger than {MOST_BYTES} bytes")
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise OptionError(
            f"records {path}: {(error.strerror or str(error)).lower()}",
            hint=f"tvmext tune MODEL --records {path} writes them",
        ) from None
    found = Records.of(text.splitlines())
    if found.ignored and not found.rows:
        raise OptionError(
            f"'{path}' holds something else than records: {found.ignored_text()}",
            hint="tvmext tune MODEL --records FILE writes such a file",
        )
    return found


class Recorded:
    """Decides for kernels by `records` where they fit, else as their rules do."""

    def __init__(self, records: Records, choices: Mapping[str, Choices]) -> None:
        self.records = records
        self.choices = choices

    def __call__(self, rule: Rule, kernel: Kernel, workload: Any, arch: Arch) -> tuple[Any, str]:
        """(decision, what the records say of it)."""
        own = rule.choose(workload, arch)
        if rule.name not in self.choices:
            return own, "nothing to choose"
        rows = self.records.fitting(workload_of(kernel, rule), arch)
        if isinstance(rows, str):
            return own, rows
        listed = {
            json.dumps(plain(one)): one
            for one in [*self.choices[rule.name].candidates(workload, arch), own]
        }
        times: dict[str, float] = {}
        for row in rows:
            times[json.dumps(row["decision"])] = row["seconds"]  # the last one counts
        known = {name: seconds for name, seconds in times.items() if name in listed}
        if not known:
            return own, "the rule no longer lists what was measured"
        best = min(known, key=known.__getitem__)
        usual = known.get(json.dumps(plain(own)))
        if usual is not None and known[best] > (1 - LEAST_GAIN) * usual:
            return own, f"measured: nothing is faster by {LEAST_GAIN:.0%}"
        return listed[best], f"measured: {known[best] * 1e6:.3g} us"
