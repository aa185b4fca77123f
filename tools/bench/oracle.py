"""How good the analytic price is: the tile it picks against the best of all by measurement.

The candidates are the register tiles of schedules/levels.py; everything else about a decision stays
as the rule made it. All candidates are timed shortly, one after the other; the fastest few and the
pick then take turns, so that the best is not just the luckiest.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
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
from tvmext.schedules.cpu import RULES
from tvmext.schedules.cpu.tile import Shape
from tvmext.schedules.levels import register_tiles
from tvmext.schedules.rule import Declined, Kernel, Rule, Scheduled
from tvmext.schedules.schedule import ScheduleKernels

from .cases import Case
from .cases.case import Graph
from .contenders import first_result

FINALISTS = 5
TRIAL_SECONDS = 0.02
PICK = "pick"
Rounds = Callable[[Mapping[str, Call]], list[Round]]


@dataclass
class _WithTile:
    """A rule whose decisions get another register tile; `made` is the last one, as it was."""

    name: str
    rule: Rule
    tile: Shape | None
    made: Any = None

    def match(self, kernel: Kernel) -> Any | Declined:
        return self.rule.match(kernel)

    def choose(self, workload: Any, arch: CpuArch) -> Any:
        self.made = self.rule.choose(workload, arch)
        if self.tile is None or not isinstance(getattr(self.made, "tile", None), Shape):
            return self.made
        return replace(self.made, tile=self.tile)

    def apply(self, kernel: Kernel, workload: Any, decision: Any, arch: CpuArch) -> Scheduled:
        return self.rule.apply(kernel, workload, decision, arch)


def oracle_row(case: Case, threads: int, rounds: Rounds) -> Figures:
    """ "picked" and "best" tile as "rows x vectors", and "share", the part of the best's speed.

    "noisy" instead of the share if the machine was disturbed, "error" if no rule picks a tile.
    """
    row: Figures = {"case": case.name, "family": case.family, "threads": threads}
    graph = case.graph()
    picked, call = _compile(graph, None)
    if picked is None:
        return {**row, "error": "no rule picks a register tile for it"}
    expected = first_result(call())
    trials: dict[str, tuple[float, Call]] = {}
    for tile in _candidates(picked):
        found = _trial(graph, tile, expected)
        if found is not None:
            trials[_text(tile)] = found
            trials = dict(sorted(trials.items(), key=lambda item: item[1][0])[:FINALISTS])
    turns = rounds({PICK: call, **{name: other for name, (_, other) in trials.items()}})
    best = min((PICK, *trials), key=lambda name: timing(turns, name).median)
    row |= {"picked": _text(picked), "best": _text(picked) if best == PICK else best}
    if best == PICK:
        return {**row, "share": 1.0}
    against = ratio(turns, best, PICK)
    if isinstance(against, Noisy):
        return {**row, "noisy": against.reason}
    return {**row, "share": min(1.0, 1 / against.value)}


def _candidates(picked: Shape) -> Iterator[Shape]:
    registers = resolve("llvm").vector_registers
    for rows, vectors in register_tiles(registers):
        tile = Shape(rows, vectors, picked.lanes)
        if tile != picked:
            yield tile


def _trial(graph: Graph, tile: Shape, expected: Any) -> tuple[float, Call] | None:
    """The least seconds of a few calls with that tile, and the call; None if it cannot be built."""
    try:
        _, call = _compile(graph, tile)
    except (AssertionError, RuntimeError, ValueError):
        return None  # a rule need not be able to build a tile that it would not choose
    agreement(first_result(call()), expected)
    best = float("inf")
    end = time.perf_counter() + TRIAL_SECONDS
    while time.perf_counter() < end:
        start = time.perf_counter()
        call()
        best = min(best, time.perf_counter() - start)
    return best, call


def _compile(graph: Graph, tile: Shape | None) -> tuple[Shape | None, Call]:
    """The tile that a rule picked by itself, and the call of the model with `tile` in its place."""
    arch = resolve("llvm")
    target = tvm.target.Target(to_target(arch))
    rules = [_WithTile(rule.name, rule, tile) for rule in RULES]
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
    tiles = [getattr(rule.made, "tile", None) for rule in rules]
    picked = next((tile for tile in tiles if isinstance(tile, Shape)), None)
    return picked, lambda: main(*tensors)


def _text(tile: Shape) -> str:
    return f"{tile.rows}x{tile.vectors}"
