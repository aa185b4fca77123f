"""Candidates of a library in turns, on this machine or, over TVM's RPC, on another.

    warm up all; then rounds: for every candidate a chunk of calls; who begins changes

The time of a candidate is the first quartile of its samples: what disturbs makes them longer, never
shorter. A sample that the processor's probe or the operating system saw disturbed does not count.
Where the fastest of what is left are too far apart or too few the candidate takes further rounds,
and stays marked as noisy if they do not help.
"""

from __future__ import annotations

import datetime
import json
import statistics
import time
from collections.abc import Callable, Container, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import tvm

from tvmext.measure.samples import CLEAN_SPEED

from .build import digest
from .journal import Journal, Row
from .workloads import key

CHUNK_SECONDS = 6e-4
ROUNDS, MORE_ROUNDS = 7, 8
MOST_SPREAD = 0.04
"""Of the fastest quarter of the samples, as a share of their longest."""

LONGEST = 0.25
"""Seconds of a call above which a candidate is left alone after its warm-up: it is no choice."""

POOL = 1 << 20
"""Random numbers that arrays are filled with, again and again."""


LOST = "lost.txt"
"""Names of the libraries that a device was lost on, in the folder of the data set."""


class DeviceLost(RuntimeError):
    """The device takes no more work in this process."""


class Device(Protocol):
    """What candidates run on."""

    name: str

    def load(self, path: Path) -> Any: ...

    def array(self, shape: list[int], dtype: str) -> Any: ...

    def seconds(self, library: Any, symbol: str, arguments: list[Any], number: int) -> float:
        """Of one call, on average over `number`."""

    def undisturbed(self) -> bool:
        """Whether nothing was noticed since the last question."""


class Local:
    """This machine. Calls are timed in C++; a probe of the clock tells what is disturbed."""

    def __init__(self, threads: int = 1) -> None:
        from tvmext.measure.host import cpu_name, interruptions
        from tvmext.measure.machine import Machine

        self.machine = Machine(threads)
        self.name = cpu_name()
        self._interruptions = interruptions(threads)
        self._seen = self._interruptions()
        self._pool = pool()

    def load(self, path: Path) -> Any:
        return tvm.runtime.load_module(str(path))

    def array(self, shape: list[int], dtype: str) -> Any:
        return tvm.runtime.tensor(filled(self._pool, shape, dtype))

    def seconds(self, library: Any, symbol: str, arguments: list[Any], number: int) -> float:
        timer = library.time_evaluator(symbol, tvm.cpu(), number=number, repeat=1)
        return float(timer(*arguments).mean)

    def undisturbed(self) -> bool:
        before, self._seen = self._seen, self._interruptions()
        rate = self.machine.probe()
        return self._seen == before and rate >= CLEAN_SPEED * self.machine.peak


class Remote:
    """A device of a TVM RPC tracker, ``host:port/key``. Disturbances show as spread only."""

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
    samples = _rounds(library, calls, device)
    common = {
        "workload": digest(key(unit["spec"])),
        "spec": key(unit["spec"]),
        "threads": unit["arch"].get("cores", 1),
        "device": device.name,
        "arch": json.dumps(unit["arch"]),
        "versions": json.dumps({"tvm": tvm.__version__}),
        "features": unit["features"],
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
    }
    for item in items:
        yield {
            **common,
            **_summary(samples[item["symbol"]]),
            "key": _key(unit, item, device),
            "rule": item["rule"],
            "decision": json.dumps(item["decision"]),
            "picked": item["picked"],
            **item["terms"],
        }


def _rounds(
    library: Any, calls: Mapping[str, list[Any]], device: Device
) -> dict[str, list[tuple[float, bool]]]:
    """(seconds, undisturbed) of all samples, by symbol."""
    samples: dict[str, list[tuple[float, bool]]] = {name: [] for name in calls}
    paces = {}
    for name, arguments in calls.items():
        device.seconds(library, name, arguments, 1)
        once = device.seconds(library, name, arguments, 1)
        paces[name] = max(1, round(CHUNK_SECONDS / once))
        if once > LONGEST:
            samples[name] = [(once, True)]
    device.undisturbed()
    names = [name for name in calls if not samples[name]]
    for turn in range(ROUNDS + MORE_ROUNDS):
        names = [n for n in names if turn < ROUNDS or _summary(samples[n])["noisy"]]
        for name in names:
            took = device.seconds(library, name, calls[name], paces[name])
            samples[name].append((took, device.undisturbed()))
        names = [*names[1:], *names[:1]]
    return samples


def _summary(samples: list[tuple[float, bool]]) -> dict[str, Any]:
    clean = [seconds for seconds, is_clean in samples if is_clean]
    used = clean if len(clean) >= 3 else [seconds for seconds, _ in samples]
    quartile = statistics.quantiles(used, n=4)[0] if len(used) > 1 else used[0]
    quartile = max(quartile, min(used))  # of three samples it would be extrapolated
    spread = 1 - min(used) / quartile
    return {
        "seconds": quartile,
        "least": min(used),
        "spread": spread,
        "samples": len(used),
        "noisy": len(samples) > 1 and (len(clean) < 3 or spread > MOST_SPREAD),
    }


def _key(unit: Mapping[str, Any], item: Mapping[str, Any], device: Device) -> str:
    """What tells a measurement from others."""
    return digest(
        json.dumps([unit["spec"], item["rule"], item["decision"], unit["arch"], device.name])
    )


def pool() -> np.ndarray:
    return np.random.default_rng(0).standard_normal(POOL, np.float32)


def filled(pool: np.ndarray, shape: list[int], dtype: str) -> np.ndarray:
    """Numbers of a normal distribution; for integers, zeros: indices have to be inside."""
    if not dtype.startswith("float"):
        return np.zeros(shape, dtype)
    return np.resize(pool, shape).astype(dtype, copy=False)
