"""What two pipelines, TVM's own and ours, make of one network, as plain data side by side."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import tvm
from tvm import relax

from tvmext.arch import resolve
from tvmext.frontends.model import Model, Node
from tvmext.options import Options
from tvmext.passes import run
from tvmext.passes.catch import Catch
from tvmext.passes.pipeline import network, pipeline
from tvmext.passes.stock import stock_pipeline
from tvmext.passes.virtual.analysis import analyze
from tvmext.passes.virtual.check import MovementKernel, movement_kernels
from tvmext.passes.virtual.rules import rule_of
from tvmext.schedules.rules import rules_for
from tvmext.schedules.schedule import ScheduleKernels

from .graph import steps_of
from .provenance import readers_of
from .sizes import Sizes
from .step import KERNEL, Step

Report = Callable[[str, str], None]
PLANNERS = ("StaticPlanBlockMemory", "PlanMemory")


@dataclass(frozen=True)
class Network:
    """A network before any pipeline; `movement` are the steps whose operators only move data."""

    steps: list[Step]
    movement: frozenset[int]
    nodes: Mapping[int, Node]
    """By the place of a value (passes/names.py): what computes it in the user's model."""

    @cached_property
    def readers(self) -> list[set[int]]:
        """For each step, those that read its result."""
        return readers_of(self.steps)

    def node(self, number: int) -> Node | None:
        """The node that a step is or is a part of; a node is known by its last value."""
        places = self.steps[number].places
        exact = [self.nodes[place] for place in sorted(places) if place in self.nodes]
        later = (self.nodes[place] for place in self.nodes if places and place > max(places))
        return exact[0] if exact else next(later, None)


@dataclass(frozen=True)
class Outcome:
    """What a pipeline made of it: `left` are the steps that are kernels which only move data."""

    steps: list[Step]
    left: Mapping[int, MovementKernel]
    planned_bytes: int

    @property
    def kernels(self) -> int:
        return sum(step.kind == KERNEL for step in self.steps)

    @property
    def bytes_moved(self) -> int:
        return sum(self.steps[k].bytes for k in self.left)

    @property
    def kernel_bytes(self) -> int:
        return sum(step.bytes for step in self.steps)


def network_of(model: Model, target: Any, sizes: Sizes, report: Report) -> Network:
    """The network as its user wrote it, less what is known before run time."""
    passes = [*network(model), relax.transform.DeadCodeElimination()]
    mod = run(passes, model.mod, target, Options(), report)
    steps = steps_of(mod, sizes)
    moving = _movement(mod)
    movement = frozenset(k for k, step in enumerate(steps) if step.var in moving)
    return Network(steps, movement, _nodes(model))


def ours(
    model: Model, target: Any, sizes: Sizes, options: Options, report: Report
) -> tuple[Outcome, tvm.IRModule]:
    """What our pipeline makes of the network, and its kernels before they are scheduled."""
    catch = Catch()
    arch = resolve(target)
    schedule = ScheduleKernels(arch, rules_for(arch, options))
    passes = pipeline(model, catch, schedule.reading, target.kind.name, options)
    return _outcome(passes, catch, model, target, sizes, options, report), catch.mod


def stock(model: Model, target: Any, sizes: Sizes, report: Report) -> Outcome:
    """What TVM's passes make of it."""
    catch = Catch()
    return _outcome(stock_pipeline(model, catch), catch, model, target, sizes, Options(), report)


def _outcome(
    passes: Sequence[Any],
    catch: Any,
    model: Model,
    target: Any,
    sizes: Sizes,
    options: Options,
    report: Report,
) -> Outcome:
    (end,) = (k + 1 for k, each in enumerate(passes) if each.info.name in PLANNERS)
    planned = run(passes[:end], model.mod, target, options, report)
    steps = steps_of(catch.mod, sizes)
    moving = (k for k, step in enumerate(steps) if step.kind == KERNEL and step.moves)
    left = dict(zip(moving, movement_kernels(catch.mod, sizes.dims), strict=True))
    return Outcome(steps, left, sizes.planned_bytes(planned))


def _nodes(model: Model) -> dict[int, Node]:
    """The nodes by place; a variable that is but another name has the node of the first."""
    found: dict[int, Node] = {}
    known = dict(model.nodes)
    bindings = [b for block in model.mod["main"].body.blocks for b in block.bindings]
    for place, binding in enumerate(bindings):
        name = binding.var.name
        if isinstance(binding.value, relax.Var) and binding.value.name in known:
            known[name] = known[binding.value.name]
        if name in known:
            found[place] = known[name]
    return found


def _movement(mod: tvm.IRModule) -> set[str]:
    """The variables of main that movement operators make, those included that no rule could map."""
    main = mod["main"]
    found = analyze(main, mod)
    moving = set()
    for block in main.body.blocks:
        for binding in block.bindings:
            value = binding.value
            if isinstance(value, relax.TupleGetItem) and binding.var in found.moved:
                moving.add(value.tuple_value.name)
            elif isinstance(value, relax.Call) and (
                binding.var in found.moved
                or (binding.var in found.declined and rule_of(value) is not None)
            ):
                moving.add(binding.var.name)
    return moving
