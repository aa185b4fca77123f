"""A network compiled under several options, and the libraries in turns: what these are worth."""

from __future__ import annotations

import shutil
import statistics
import time
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

import tvmext

from .case import drawn

TARGET = "llvm -num-cores=1"
"""What all are compiled for, as one thread runs them, whatever cores are free just then."""

COPIES = 4


def compile_sides(
    network: str, mode: str, folder: Path, sides: Mapping[str, tvmext.Options]
) -> dict[str, Any]:
    """A library for each side and the inputs in `folder`; the seconds that each took, and how its
    kernels were decided."""
    folder.mkdir(parents=True, exist_ok=True)
    seconds, decisions = {}, {}
    with drawn(network, mode) as (path, inputs, dims):
        np.savez(folder / "inputs.npz", **inputs[0])
        for name, options in sides.items():
            started = time.monotonic()
            compiled = tvmext.compile(path, TARGET, dims, options)
            seconds[name] = time.monotonic() - started
            compiled.save(folder / f"{name}.so")
            decisions[name] = compiled.metadata.decisions
    return {"compile_seconds": seconds, "decisions": decisions}


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
