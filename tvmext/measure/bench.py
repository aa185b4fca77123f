"""How long the runs of a compiled model take: alone, and in turns with others."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from tvmext.build import CompileRequest
from tvmext.errors import CheckFailed, TvmextError
from tvmext.runtime import CompiledModel
from tvmext.runtime.threads import default_threads

from .agreement import agreement
from .figures import Figures, figures
from .host import interruptions
from .machine import Machine
from .rivals import RIVALS, Run
from .timing import Call, measure

OURS = "tvmext"
PERCENTILES = (50.0, 90.0, 95.0, 99.0)


@dataclass(frozen=True)
class Latency:
    """Seconds of single runs, arrays in and arrays out; `percentiles` by their number."""

    runs: int
    total: float
    minimum: float
    mean: float
    maximum: float
    std: float
    percentiles: Mapping[float, float]

    @property
    def throughput(self) -> float:
        """Runs per second, one after the other."""
        return self.runs / self.total


@dataclass(frozen=True)
class Benchmark:
    """What `benchmark` found. `figures` are those of turns with rivals (figures.py), and `failed`
    says which rivals could not take part, and why."""

    model: str
    sizes: Mapping[str, int]
    threads: int
    latency: Latency
    figures: Figures = field(default_factory=dict)
    failed: Mapping[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Plain data, times in seconds, those of `figures` in microseconds."""
        found = asdict(self)
        found["latency"]["throughput"] = self.latency.throughput
        found["latency"]["percentiles"] = {
            f"{number:g}": seconds for number, seconds in self.latency.percentiles.items()
        }
        return found


def benchmark(
    compiled: CompiledModel,
    inputs: Mapping[str, Any],
    *,
    warmup: float = 0.2,
    duration: float = 3.0,
    percentiles: Sequence[float] = PERCENTILES,
    against: Sequence[str] = (),
    request: CompileRequest | None = None,
) -> Benchmark:
    """Run `compiled` for `duration` seconds after `warmup` seconds, and then in turns with rivals.

    `against` are names of `RIVALS`, which load the model of `request`. Turns take `duration` for
    each side; a ratio is given only where the machine was quiet enough to tell. Raises CheckFailed
    if a rival computes something else.
    """
    threads = compiled.num_threads or default_threads()

    def ours() -> Mapping[str, np.ndarray]:
        return compiled.run(inputs)

    found = latency(ours, warmup, duration, percentiles)
    calls: dict[str, Call] = {OURS: ours}
    failed: dict[str, str] = {}
    for name in against:
        assert request is not None, "rivals need the model"
        try:
            run = RIVALS[name](request, inputs, threads)
            outputs = run()
        except TvmextError as error:
            failed[name] = error.message
            continue
        _agree(name, ours, outputs)
        calls[name] = run
    compared: Figures = {}
    if len(calls) > 1:
        machine = Machine(threads)
        rounds = measure(calls, machine, interruptions(threads), seconds=duration * len(calls))
        compared = figures(rounds, OURS)
    sizes = compiled.sizes(inputs)
    return Benchmark(compiled.metadata.source, sizes, threads, found, compared, failed)


def latency(
    call: Call, warmup: float, duration: float, percentiles: Sequence[float] = PERCENTILES
) -> Latency:
    """Time single calls for `duration` seconds, at least one, after `warmup` seconds."""
    end = time.perf_counter() + warmup
    call()
    while time.perf_counter() < end:
        call()
    samples: list[float] = []
    begin = now = time.perf_counter()
    while not samples or now - begin < duration:
        call()
        before, now = now, time.perf_counter()
        samples.append(now - before)
    taken = np.array(samples)
    return Latency(
        len(samples),
        now - begin,
        float(taken.min()),
        float(taken.mean()),
        float(taken.max()),
        float(taken.std()),
        {number: float(np.percentile(taken, number)) for number in percentiles},
    )


def _agree(name: str, ours: Run, theirs: Mapping[str, np.ndarray]) -> None:
    """Raises CheckFailed if the outputs differ by more than rounding explains."""
    output = ""
    try:
        for output, array in ours().items():
            agreement(array, theirs[output])
    except ValueError as error:
        raise CheckFailed(
            f"output '{output}' is not that of {name}: {error}",
            hint="tvmext verify MODEL, to see where they differ",
        ) from error
