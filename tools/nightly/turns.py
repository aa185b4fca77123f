"""Our library, that of the last good commit, and ONNX Runtime take turns.

Profiles of the first two take turns as well. Runs say that something is slower, profiles say what:
the seconds of all kernels that one schedule rule made, a *family*. A family may slow down by a
tenth and its network by a hundredth.

Where inputs and outputs lie decides up to a fifth of the time of a kernel that only streams, and in
a process that repeats itself they lie where they lay. So inputs lie elsewhere in every profile, and
in several places over the runs: what was a bias becomes noise, which the test knows how to treat.
"""

from __future__ import annotations

import math
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np

from tvmext.measure.figures import figures
from tvmext.measure.host import interruptions
from tvmext.measure.machine import Machine
from tvmext.measure.profile import profile_model
from tvmext.measure.rivals import session_of
from tvmext.measure.samples import Round, clean
from tvmext.measure.timing import measure

OURS, BASE, RIVAL = "ours", "base", "onnxruntime"
RUN = "run"
LEAST_SHARE, LEAST_SECONDS = 0.02, 10e-6
"""A family below both in a run is too short to time by its kernels."""

PROFILES = 25
PLACES = 4
PAGE, LINE = 4096, 64

PROFILE_SECONDS = 4e-3
"""A profile repeats its runs to this length and takes the least of each kernel."""


def turns(
    model: Path,
    libraries: Mapping[str, Any],
    inputs: Mapping[str, Any],
    seconds: float,
    rival: bool,
) -> dict[str, Any]:
    """Figures of runs in turns, and for a base, the logarithms of new / old time.

    "sides" and "ratios" are those of `tvmext.measure.figures`, times in microseconds; "families"
    the microseconds of each rule by side; "logs" lists by "run" and by rule.
    """
    machine = Machine(1)
    draw = np.random.default_rng()
    calls: dict[str, Callable[[], object]] = {}
    for side, library in libraries.items():
        calls[side] = call_of(library.run, inputs, draw)
    on_cpu = libraries[OURS].device != "cuda"
    if rival and on_cpu:
        session = session_of(str(model), 1)
        names = [spec.name for spec in libraries[OURS].outputs]
        calls[RIVAL] = call_of(partial(session.run, names), inputs, draw)
    rounds = measure(calls, machine, interruptions(1), seconds=seconds)
    found: dict[str, Any] = dict(figures(rounds, OURS))
    found["logs"] = {RUN: logs_of(rounds)} if BASE in calls else {}
    least = min(turn[OURS].seconds for turn in rounds)
    roof = machine if on_cpu else None
    taken = profiles(libraries, inputs, least, seconds, roof, draw)
    found["families"] = {side: microseconds(each) for side, each in taken.items()}
    if BASE in taken:
        found["logs"] |= family_logs(taken[OURS], taken[BASE])
    return found


def call_of(
    run: Callable[[Mapping[str, Any]], object],
    inputs: Mapping[str, Any],
    draw: np.random.Generator,
) -> Callable[[], object]:
    """A run with the inputs in the next one of a few places."""
    places = cycle([placed(inputs, draw) for _ in range(PLACES)])
    return lambda: run(next(places))


def placed(inputs: Mapping[str, Any], draw: np.random.Generator) -> dict[str, np.ndarray]:
    """Copies of the inputs that begin at random cache lines of a page."""
    copies = {}
    for name, array in inputs.items():
        memory = np.empty(array.nbytes + 2 * PAGE, np.uint8)
        start = -memory.ctypes.data % PAGE + LINE * int(draw.integers(PAGE // LINE))
        copies[name] = memory[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
        copies[name][...] = array
    return copies


def logs_of(rounds: Sequence[Round]) -> list[float]:
    """ln(ours / base) of each round in which both were undisturbed."""
    both = zip(rounds, clean(rounds, OURS), clean(rounds, BASE))
    return [math.log(turn[OURS].seconds / turn[BASE].seconds) for turn, a, b in both if a and b]


def profiles(
    libraries: Mapping[str, Any],
    inputs: Mapping[str, Any],
    least: float,
    seconds: float,
    roof: Machine | None,
    draw: np.random.Generator,
) -> dict[str, list[dict[str, float]]]:
    """Seconds by rule, several times of each side, in turns that rotate."""
    runs = max(2, min(50, round(PROFILE_SECONDS / max(least, 1e-7))))
    taken: dict[str, list[dict[str, float]]] = {side: [] for side in libraries}
    sides = list(libraries)
    end = time.perf_counter() + seconds
    while len(taken[OURS]) < PROFILES and (time.perf_counter() < end or not taken[OURS]):
        for side in sides:
            found = profile_model(libraries[side], placed(inputs, draw), runs, roof)
            spent: dict[str, float] = defaultdict(float)
            for row in found.rows:
                spent[row.rule or row.kernel.name] += row.kernel.seconds
            taken[side].append(dict(spent))
        sides = sides[::-1]
    return taken


def microseconds(taken: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The least of each family."""
    names = dict.fromkeys(name for each in taken for name in each)
    return {name: 1e6 * min(each[name] for each in taken if name in each) for name in names}


def family_logs(
    ours: Sequence[Mapping[str, float]], base: Sequence[Mapping[str, float]]
) -> dict[str, list[float]]:
    """ln(ours / base) of every family that both sides have and that is long enough to time."""
    whole = sum(microseconds(base).values()) / 1e6
    found = {}
    for name, spent in microseconds(base).items():
        long = spent / 1e6 >= max(LEAST_SECONDS, LEAST_SHARE * whole)
        pairs = [(a.get(name, 0), b.get(name, 0)) for a, b in zip(ours, base)]
        if long and all(a > 0 and b > 0 for a, b in pairs):
            found[name] = [math.log(a / b) for a, b in pairs]
    return found
