"""A network compiled under several options, and the libraries in turns: what these are worth."""

from __future__ import annotations

import resource
import shutil
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

import tvmext
from tvmext.build import compile_in_child
from tvmext.errors import TvmextError
from tvmext.measure.timing import LONG_SECONDS
from tvmext.model_file import request_for

from .case import drawn

TARGET = "llvm -num-cores=1"
"""What all are compiled for, as one thread runs them, whatever cores are free just then."""

COPIES = 4

STOCK = "stock"
"""TVM 0.27's own passes and schedules (tvmext/measure/stock.py)."""

MOST_COMPILES = 5
"""Of each side, while there is time: what a side costs is the least processor time of them."""

LEAST_ROUNDS, MOST_ROUNDS = 2, 15
"""With a side that may be many times slower."""


def compile_sides(
    network: str,
    mode: str,
    folder: Path,
    sides: Mapping[str, tvmext.Options],
    *,
    seconds: float = 0,
    stock: bool = False,
) -> dict[str, Any]:
    """A library for each side and the inputs in `folder`; what each took, and how its kernels were
    decided.

    "compile_seconds" are those of the first time, "compile_cpu" the least processor seconds of
    several times, in turns, that begin within `seconds`. With `stock`, TVM's library is there too,
    or "stock_error" says why not.
    """
    folder.mkdir(parents=True, exist_ok=True)
    taken: dict[str, list[float]] = {name: [] for name in sides}
    spent: dict[str, list[float]] = {name: [] for name in sides}
    decisions = {}
    found: dict[str, Any] = {}
    with drawn(network, mode) as (path, inputs, dims):
        np.savez(folder / "inputs.npz", **inputs[0])
        end = time.monotonic() + seconds
        for turn in range(MOST_COMPILES):
            for name in sorted(sides, reverse=turn % 2 == 1):
                before, started = _children(), time.monotonic()
                compiled = tvmext.compile(path, TARGET, dims, sides[name], cache="off")
                taken[name].append(time.monotonic() - started)
                spent[name].append(_children() - before)
                compiled.save(folder / f"{name}.so")
                decisions[name] = compiled.metadata.decisions
            if time.monotonic() > end:
                break
        if stock:
            found["stock_error"] = _stock(path, dims, folder / f"{STOCK}.so")
    return found | {
        "compile_seconds": {name: times[0] for name, times in taken.items()},
        "compile_cpu": {name: min(times) for name, times in spent.items()},
        "compiles": turn + 1,
        "decisions": decisions,
    }


def _children() -> float:
    """Processor seconds of processes that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _stock(path: Path, dims: Any, library: Path) -> str:
    """TVM's library; what went wrong, or nothing."""
    try:
        with request_for(path, TARGET, dims) as request:
            compile_in_child(request, entry="tvmext.measure.stock:compile_stock")
            shutil.copy(request.output, library)
    except TvmextError as error:
        return str(error)
    return ""


def timed_slow(folder: Path, names: Sequence[str], seconds: float) -> dict[str, float]:
    """One thread, all libraries in turns: the median seconds of a call of each.

    For sides so far apart that undisturbed rounds need not be told: a call each to warm up, and
    then a few rounds, those that begin within `seconds`. Raises what a call raises.
    """
    inputs = dict(np.load(folder / "inputs.npz"))
    libraries = {name: tvmext.load(folder / f"{name}.so", num_threads=1) for name in names}
    calls = {name: lambda it=library: it.run(inputs) for name, library in libraries.items()}
    samples: dict[str, list[float]] = {name: [] for name in names}
    for call in calls.values():
        call()
    end = time.monotonic() + seconds
    for turn in range(MOST_ROUNDS):
        if turn >= LEAST_ROUNDS and time.monotonic() > end:
            break
        for name, call in calls.items():
            samples[name].append(_once(call))
    return {name: statistics.median(times) for name, times in samples.items()}


def _once(call: Callable[[], object]) -> float:
    """A call to warm what the others have taken from the caches, if it is short, and one timed."""
    for _ in range(2):
        started = time.perf_counter()
        call()
        took = time.perf_counter() - started
        if took > LONG_SECONDS:
            break
    return took


def timed(folder: Path, ours: str, rival: str, seconds: float) -> dict[str, Any]:
    """One thread, both libraries in turns: `tvmext.measure.figures`, and "all_rounds".

    The latter is the median ratio of all rounds, disturbed ones as well. Several times, with copies
    of the libraries: weights are pages of the file, which lie where memory was free when it was
    written, and the same product of 7 MB took 1.24 ms in one copy and 1.48 ms in another.
    """
    from tvmext.measure.figures import figures

    names = (ours, rival)
    taken = [turn for k in range(COPIES) for turn in _rounds(folder, names, k, seconds / COPIES)]
    ratios = [turn[rival].seconds / turn[ours].seconds for turn in taken]
    return figures(taken, ours) | {"all_rounds": statistics.median(ratios)}


def _rounds(folder: Path, names: tuple[str, ...], number: int, seconds: float) -> list[Any]:
    """The samples that fresh copies of the libraries give, made in turns in either order."""
    from tvmext.measure.host import interruptions
    from tvmext.measure.machine import Machine
    from tvmext.measure.timing import measure

    inputs = dict(np.load(folder / "inputs.npz"))
    with TemporaryDirectory(dir=folder) as fresh:
        order = sorted(names, reverse=number % 2 == 0)
        files = {name: shutil.copy(folder / f"{name}.so", fresh) for name in order}
        libraries = {name: tvmext.load(file, num_threads=1) for name, file in files.items()}
    calls = {name: lambda it=library: it.run(inputs) for name, library in libraries.items()}
    return measure(calls, Machine(1), interruptions(1), seconds=seconds)
