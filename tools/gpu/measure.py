"""One case after the other: prepare all sides, check what they compute, time them in turns."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from tvmext.measure.figures import figures
from tvmext.measure.samples import Round, Sample

from .device import Device
from .inputs import Problem
from .sides import Build, Contender

OURS = "tvmext"
WARM, FEWEST, ROUNDS = 5, 8, 60
"""Calls before the first sample; samples of a slow and of a fast contender."""
Row = dict[str, Any]


def measured(
    problem: Problem,
    device: Device,
    sides: Mapping[str, Build],
    *,
    seconds: float = 3.0,
    rounds: int = ROUNDS,
) -> Row:
    """The row of a problem.

    "sides" and "ratios" are those of bench/figures.py; "errors" holds the largest error of each
    side in units of what is allowed, "failed" {side: what went wrong}, "missing" {side: why it does
    not exist}. A side that is wrong is not timed.
    """
    contenders: dict[str, Contender] = {}
    errors: dict[str, float] = {}
    failed: dict[str, str] = {}
    missing: dict[str, str] = {}
    for name, build in sides.items():
        try:
            made = build(problem, device)
            result = made.result()
            if _is_comparable(problem, name):
                errors[name] = float(problem.check(result))
        except NotImplementedError as reason:
            missing[name] = str(reason)
            continue
        except Exception as error:  # a side may fail in any way; the others go on
            failed[name] = f"{type(error).__name__}: {error}".strip()[:300]
            continue
        if errors.get(name, 0) <= 1:
            contenders[name] = made
        else:
            failed[name] = f"wrong: {errors[name]:.3g} times what is allowed"
    taken = timed(contenders, device, seconds, rounds) if contenders else []
    return {**figures(taken, OURS), "errors": errors, "failed": failed, "missing": missing}


def _is_comparable(problem: Problem, side: str) -> bool:
    """Whether a side has the weights of the problem."""
    return problem.kind != "network" or side not in ("torch", "torch.compile", "max-autotune")


def timed(
    contenders: Mapping[str, Contender], device: Device, seconds: float, rounds: int
) -> list[Round]:
    """Rounds of one call each; who begins changes from round to round."""
    for contender in contenders.values():
        for _ in range(WARM):
            device.seconds(contender.call)
    names = list(contenders)
    found: list[Round] = []
    end = time.monotonic() + seconds
    speed = device.speed()
    while len(found) < FEWEST or (len(found) < rounds and time.monotonic() < end):
        if len(found) % 10 == 9:
            speed = device.speed()
        found.append({name: Sample(device.seconds(contenders[name].call), speed) for name in names})
        names = [*names[1:], names[0]]
    return found
