"""How good the analytic price is: the decision it picks against the best of all by measurement.

For products and convolutions the candidates are all register tiles of schedules/levels.py,
everything else staying as the rule made it. Elsewhere (depthwise, attention, reductions) they are
what a cost model may choose (schedules/cpu/choices.py). All candidates are timed shortly, one after
the other; the fastest few and the pick then take turns, so that the best is not just the luckiest.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import onnx
import tvm
from tvm import relax

from tvmext import frontends
from tvmext.arch import CpuArch, resolve, to_target
from tvmext.measure.agreement import agreement
from tvmext.measure.figures import Figures
from tvmext.measure.samples import Noisy, Round, ratio, timing
from tvmext.measure.timing import Call
from tvmext.options import Options
from tvmext.passes import lower
from tvmext.schedules.brief import brief
from tvmext.schedules.cpu import RULES
from tvmext.schedules.cpu.choices import choices
from tvmext.schedules.cpu.tile import Shape
from tvmext.schedules.levels import register_tiles
from tvmext.schedules.rule import Declined, Kernel, Rule, Scheduled
from tvmext.schedules.schedule import ScheduleKernels
from tvmext.schedules.select import plain

from .cases import Case
from .cases.case import Graph
from .contenders import first_result

TILED = ("gemm", "conv")
"""Families that can build every register tile, also those that they would not choose."""

FINALISTS = 5
TRIAL_SECONDS = 0.02
PICK = "pick"
Rounds = Callable[[Mapping[str, Call]], list[Round]]


@dataclass(frozen=True)
class _Made:
    """What a rule decided about a kernel."""

    family: str
    workload: Any
    decision: Any

    @property
    def tile(self) -> Shape | None:
        """The register tile, if the rule can build any."""
        tile = getattr(self.decision, "tile", None)
        return tile if isinstance(tile, Shape) and self.family in TILED else None

    def __str__(self) -> str:
        """ "rows x vectors" of the register tile, or the decision in words."""
        return f"{self.tile.rows}x{self.tile.vectors}" if self.tile else brief(plain(self.decision))


Change = Callable[[_Made], Any]
"""Another decision in the place of what was made."""


@dataclass
class _Changed:
    """A rule whose decisions are changed; `made` are its own."""

    name: str
    rule: Rule
    change: Change
    made: list[_Made] = field(default_factory=list)

    @property
    def takes_loaders(self) -> bool:
        return getattr(self.rule, "takes_loaders", True)

    def match(self, kernel: Kernel) -> Any | Declined:
        return self.rule.match(kernel)

    def choose(self, workload: Any, arch: CpuArch) -> Any:
        made = _Made(self.name, workload, self.rule.choose(workload, arch))
        self.made.append(made)
        return self.change(made)

    def apply(self, kernel: Kernel, workload: Any, decision: Any, arch: CpuArch) -> Scheduled:
        return self.rule.apply(kernel, workload, decision, arch)


def oracle_row(case: Case, threads: int, rounds: Rounds) -> Figures:
    """ "picked" and "best" decision, and "share", the part of the best's speed.

    "noisy" instead of the share if the machine was disturbed, "error" if there is no choice.
    """
    row: Figures = {"case": case.name, "family": case.family, "threads": threads}
    graph = case.graph()
    made, call = _compile(graph, lambda made: made.decision)
    picked = next((one for one in made if one.tile), None)
    picked = picked or next((one for one in made if one.family in choices()), None)
    if picked is None:
        return {**row, "error": "no rule has a choice about it"}
    expected = first_result(call())
    trials: dict[str, tuple[float, Call]] = {}
    for candidate, change in _candidates(picked):
        found = _trial(graph, change, expected)
        if found is not None:
            trials[str(candidate)] = found
            trials = dict(sorted(trials.items(), key=lambda item: item[1][0])[:FINALISTS])
    turns = rounds({PICK: call, **{name: other for name, (_, other) in trials.items()}})
    best = min((PICK, *trials), key=lambda name: timing(turns, name).median)
    row |= {"picked": str(picked), "best": str(picked) if best == PICK else best}
    if best == PICK:
        return {**row, "share": 1.0}
    against = ratio(turns, best, PICK)
    if isinstance(against, Noisy):
        return {**row, "noisy": against.reason}
    return {**row, "share": min(1.0, 1 / against.value)}


def _candidates(picked: _Made) -> Iterator[tuple[_Made, Change]]:
    """Everything else that could have been decided, and what decides so."""
    arch = _host()
    if picked.tile:
        for rows, vectors in register_tiles(arch.vector_registers):
            tile = Shape(rows, vectors, picked.tile.lanes)
            if tile != picked.tile:
                yield replace(picked, decision=replace(picked.decision, tile=tile)), _tile(tile)
        return
    for decision in choices()[picked.family].candidates(picked.workload, arch):
        if decision != picked.decision:
            yield replace(picked, decision=decision), _decision(picked, decision)


def _tile(tile: Shape) -> Change:
    return lambda made: replace(made.decision, tile=tile) if made.tile else made.decision


def _decision(picked: _Made, decision: Any) -> Change:
    return lambda made: decision if made == picked else made.decision


def _trial(graph: Graph, change: Change, expected: Any) -> tuple[float, Call] | None:
    """The least seconds of a few calls so changed, and the call; None if it cannot be built."""
    try:
        _, call = _compile(graph, change)
    except (AssertionError, RuntimeError, ValueError):
        return None  # a rule need not be able to build what it would not choose
    agreement(first_result(call()), expected)
    best = float("inf")
    end = time.perf_counter() + TRIAL_SECONDS
    while time.perf_counter() < end:
        start = time.perf_counter()
        call()
        best = min(best, time.perf_counter() - start)
    return best, call


def _compile(graph: Graph, change: Change) -> tuple[list[_Made], Call]:
    """What the rules decided by themselves, and the call of the model with `change` of that."""
    arch = _host()
    target = tvm.target.Target(to_target(arch))
    rules = [_Changed(rule.name, rule, change) for rule in RULES]
    with tempfile.TemporaryDirectory(prefix="tvmext-bench-") as folder:
        path = Path(folder) / "model.onnx"
        onnx.save(graph.model(), path)
        model = frontends.load(path)
    schedule = ScheduleKernels(arch, rules)
    quiet = lambda *_: None  # noqa: E731
    module = lower(model, schedule, schedule.reading, target, Options(), quiet)
    machine = relax.VirtualMachine(relax.build(module, target, relax_pipeline=None), tvm.cpu())
    main = machine["main"]
    tensors = [tvm.runtime.tensor(array) for array in graph.inputs.values()]
    return [made for rule in rules for made in rule.made], lambda: main(*tensors)


def _host() -> CpuArch:
    arch = resolve("llvm")
    assert isinstance(arch, CpuArch)
    return arch
