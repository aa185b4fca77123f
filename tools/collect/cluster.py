"""Building and measuring on many machines: a Dask scheduler, and workers wherever they are.

    dask scheduler                                              # on one machine
    dask worker HOST:8786 --nthreads 1 --resources "measure=1"  # on every machine, as often as
                                                                # it has cores; see below
    python -m tools.collect build FOLDER --scheduler HOST:8786
    python -m tools.collect measure FOLDER --data DATA --scheduler HOST:8786

Libraries travel as bytes, so that no file system is shared. Only workers that have the resource
``measure`` measure, one thing at a time: one per machine, on a core of its own, while nothing is
built there. What they measure is written here, one line at a time, as it arrives.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from distributed import Client, as_completed

from tvmext.arch import Arch

from .journal import Journal, Row
from .workloads import Spec, key


def build_all(
    client: Client, specs: Iterable[Spec], arch: Arch, folder: Path, **options: Any
) -> Iterator[str]:
    """Build on the cluster, for `arch`; the names of units as they are written into `folder`."""
    futures = [client.submit(_built, spec, arch, options, pure=False) for spec in specs]
    for future in as_completed(futures):
        if future.status != "finished":
            yield f"failed: {future.exception()}"
            continue
        files: Mapping[str, bytes] = future.result()
        for name in sorted(files, reverse=True):  # the library, then what says that it is there
            unfinished = folder / f".{name}.tmp"
            unfinished.write_bytes(files[name])
            os.replace(unfinished, folder / name)
            yield name
        future.release()


def measure_all(client: Client, folder: Path, journal: Journal, threads: int = 1) -> int:
    """Measure what is not in the journal; how many candidates that was."""
    done = journal.keys()
    futures = []
    for path in sorted(folder.glob("*.json")):
        library = path.with_suffix(".so")
        if library.exists():
            content = (path.read_text(), library.read_bytes(), done, threads)
            futures.append(client.submit(_measured, *content, pure=False, resources={"measure": 1}))
    count = 0
    for future in as_completed(futures):
        if future.status != "finished":
            print(f"failed: {future.exception()}")
            continue
        for row in future.result():
            journal.add(row)
            count += 1
        future.release()
    return count


def _built(spec: Spec, arch: Arch, options: Mapping[str, Any]) -> dict[str, bytes]:
    """On a worker: the files of a unit."""
    from .build import build, digest

    with tempfile.TemporaryDirectory(prefix="tvmext-collect-") as folder:
        build(spec, arch, Path(folder), **options)
        paths = (Path(folder) / f"{digest(key(spec))}{end}" for end in (".so", ".json"))
        return {path.name: path.read_bytes() for path in paths if path.exists()}


def _measured(described: str, library: bytes, done: set[str], threads: int) -> list[Row]:
    """On a worker: the rows of a unit."""
    from .measure import measured, pending

    unit = json.loads(described)
    device = _device(threads)
    items = pending(unit, device, done)
    if not items:
        return []
    with tempfile.TemporaryDirectory(prefix="tvmext-collect-") as folder:
        path = Path(folder) / f"{unit['name']}.so"
        path.write_bytes(library)
        return list(measured(unit, items, path, device))


@lru_cache
def _device(threads: int) -> Any:
    from tvmext.measure.turns import Local

    return Local(threads)
