"""Candidates of libraries, timed in turns (tvmext/measure/turns.py), here or over TVM's RPC."""

from __future__ import annotations

import datetime
import json
import time
from collections.abc import Callable, Container, Iterator, Mapping
from pathlib import Path
from typing import Any

import tvm

from tvmext.measure.turns import Device, DeviceLost, filled, pool, summary, timed

from .build import digest
from .journal import Journal, Row
from .workloads import key

LOST = "lost.txt"
"""Names of the libraries that a device was lost on, in the folder of the data set."""


class Remote:
    """A device of a TVM RPC tracker, ``host:port/key``. Disturbances show as spread only."""

    threads = 1

    def __init__(self, address: str) -> None:
        from tvm import rpc

        where, _, self.name = address.partition("/")
        host, _, port = where.rpartition(":")
        self.session = rpc.connect_tracker(host, int(port)).request(self.name)
        self._pool = pool()

    def load(self, path: Path) -> Any:
        self.session.upload(str(path))
        return self.session.load_module(path.name)

    def array(self, shape: list[int], dtype: str) -> Any:
        return tvm.runtime.tensor(filled(self._pool, shape, dtype), self.session.cpu())

    def seconds(self, library: Any, symbol: str, arguments: list[Any], number: int) -> float:
        timer = library.time_evaluator(symbol, self.session.cpu(), number=number, repeat=1)
        return float(timer(*arguments).mean)

    def undisturbed(self) -> bool:
        return True


def collect(
    folder: Path,
    journal: Journal,
    device: Device,
    *,
    seconds: float = float("inf"),
    told: Callable[[str], None] = print,
) -> int:
    """Measure every library of `folder` that is not in the journal yet; how many candidates.

    A library that the device is lost on is left out from the next run on. Raises DeviceLost.
    """
    done = journal.keys()
    lost = journal.folder / LOST
    left_out = set(lost.read_text().split()) if lost.exists() else set()
    end = time.monotonic() + seconds
    count = 0
    for path in sorted(folder.glob("*.json")):
        unit = json.loads(path.read_text())
        items = pending(unit, device, done)
        if not items or path.stem in left_out:
            continue
        if time.monotonic() > end:
            break
        try:
            for row in measured(unit, items, path.with_suffix(".so"), device):
                journal.add(row)
                count += 1
        except DeviceLost:
            with lost.open("a") as file:
                print(path.stem, file=file)
            raise
        except (RuntimeError, MemoryError) as error:
            told(f"{path.stem}: {type(error).__name__}: {str(error)[:200]}")
    return count


def pending(unit: Mapping[str, Any], device: Device, done: Container[str]) -> list[dict[str, Any]]:
    """The candidates of a library whose measurements are not there yet."""
    return [item for item in unit["items"] if _key(unit, item, device) not in done]


def measured(
    unit: Mapping[str, Any], items: list[dict[str, Any]], path: Path, device: Device
) -> Iterator[Row]:
    """A row for each candidate."""
    library = device.load(path)
    arrays: dict[tuple[int, str], Any] = {}

    def argument(number: int, param: list[Any]) -> Any:
        where = (number, json.dumps(param))
        if where not in arrays:
            arrays[where] = device.array(*param)
        return arrays[where]

    calls = {
        item["symbol"]: [argument(n, param) for n, param in enumerate(item["params"])]
        for item in items
    }
    samples = timed(library, calls, device)
    common = {
        "workload": digest(key(unit["spec"])),
        "spec": key(unit["spec"]),
        "threads": device.threads,
        "device": device.name,
        "arch": json.dumps(unit["arch"]),
        "versions": json.dumps({"tvm": tvm.__version__}),
        "features": unit["features"],
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
    }
    for item in items:
        yield {
            **common,
            **summary(samples[item["symbol"]]),
            "key": _key(unit, item, device),
            "rule": item["rule"],
            "decision": json.dumps(item["decision"]),
            "picked": item["picked"],
            **item["terms"],
        }


def _key(unit: Mapping[str, Any], item: Mapping[str, Any], device: Device) -> str:
    """What tells a measurement from others."""
    kernel = [unit["spec"], item["rule"], item["decision"], unit["arch"]]
    return digest(json.dumps([*kernel, device.name, device.threads]))
