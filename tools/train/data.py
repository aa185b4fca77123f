"""A data set as a matrix: features, what was measured, and which rows are one workload."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from tvmext.schedules.cost.features import features
from tvmext.schedules.cost.terms import FAMILIES, FIELDS, VERSION, Terms

LEAST_SECONDS = 5e-7


@dataclass(frozen=True, eq=False)
class Data:
    """Rows are candidates. `group` numbers the workloads; `family` is that of the rule's choice.

    A convolution's candidates are of two families, conv and winograd: they compete.
    """

    terms: Terms
    features: np.ndarray
    seconds: np.ndarray
    group: np.ndarray
    family: np.ndarray
    picked: np.ndarray
    apart: np.ndarray
    """Logarithm of the longest over the shortest time of a row's sessions, 0 for one alone."""
    spec: np.ndarray
    """Numbers what was drawn: the same on every machine, and for any number of cores."""
    machine: np.ndarray
    """A place in `machines`, kinds of processors."""
    machines: tuple[str, ...]
    sha256: str

    @property
    def target(self) -> np.ndarray:
        """The logarithm of measured over analytic seconds."""
        found: np.ndarray = np.log(self.seconds / self.terms.seconds)
        return found

    def where(self, rows: np.ndarray) -> Data:
        """Some rows, in order."""
        columns = {name: self.terms.column(name)[rows] for name in FIELDS}
        return Data(
            Terms(columns, len(columns["rows"])),
            self.features[rows],
            self.seconds[rows],
            self.group[rows],
            self.family[rows],
            self.picked[rows],
            self.apart[rows],
            self.spec[rows],
            self.machine[rows],
            self.machines,
            self.sha256,
        )

    def workloads(self) -> Iterator[np.ndarray]:
        """The rows of each workload."""
        order = np.argsort(self.group, kind="stable")
        starts = np.flatnonzero(np.diff(self.group[order])) + 1
        yield from np.split(order, starts)


def load(path: Path) -> Data:
    """A Parquet file of tools.collect.

    Noisy rows are left out, workloads of a single row, and those that are mostly the call.

    Raises ValueError for terms of another version.
    """
    table = pq.read_table(path)
    versions = set(table["features"].to_pylist())
    if versions != {VERSION}:
        raise ValueError(f"{path}: terms of version {sorted(versions)}, this is {VERSION}")
    names = (*FIELDS, "seconds", "noisy", "picked", "apart")
    columns = {name: table[name].to_numpy() for name in names}
    owners = zip(*(table[n].to_pylist() for n in ("workload", "rule", "threads", "arch", "device")))
    groups = np.unique([" ".join(map(str, owner)) for owner in owners], return_inverse=True)[1]
    specs = np.unique(table["workload"].to_pylist(), return_inverse=True)[1]
    kinds = [json.loads(text)["family"] for text in table["arch"].to_pylist()]
    machines, machine = np.unique(kinds, return_inverse=True)
    # A sure order: by workload, then by what the keys are.
    order = np.lexsort((np.array(table["key"].to_pylist()), groups))
    groups, specs, machine = groups[order], specs[order], machine[order]
    columns = {name: column[order] for name, column in columns.items()}
    good = ~columns["noisy"].astype(bool)
    picked = columns["picked"].astype(bool)
    number = groups.max() + 1
    usable = np.bincount(groups[good], minlength=number) > 1
    usable &= np.bincount(groups[good & picked], minlength=number) == 1
    fastest = np.full(number, np.inf)
    np.minimum.at(fastest, groups, columns["seconds"])
    good &= (usable & (fastest >= LEAST_SECONDS))[groups]
    terms = Terms({name: columns[name][good] for name in FIELDS}, int(good.sum()))
    group = np.unique(groups[good], return_inverse=True)[1]
    family = terms.column("family").astype(int)
    family = np.where(family == FAMILIES.index("winograd"), FAMILIES.index("conv"), family)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    seconds = columns["seconds"][good]
    return Data(
        terms,
        features(terms),
        seconds,
        group,
        family,
        picked[good],
        columns["apart"][good],
        np.unique(specs[good], return_inverse=True)[1],
        machine[good],
        tuple(machines.tolist()),
        digest,
    )


def folds(data: Data, count: int, seed: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(training rows, test rows), whole workloads held out, `count` times, each one once.

    What was drawn once and measured on several machines is held out on all of them.
    """
    number = data.spec.max() + 1
    fold = np.random.default_rng(seed).permutation(number) % count
    for each in range(count):
        held = fold[data.spec] == each
        yield np.flatnonzero(~held), np.flatnonzero(held)


def by_machine(data: Data) -> Iterable[tuple[str, np.ndarray]]:
    """The kinds of machines that there are, and their rows."""
    for number, name in enumerate(data.machines):
        rows = np.flatnonzero(data.machine == number)
        if len(rows):
            yield name, rows


def families(data: Data) -> Iterable[tuple[str, np.ndarray]]:
    """The families that there are, and their rows."""
    for number in np.unique(data.family):
        yield FAMILIES[number], np.flatnonzero(data.family == number)
