"""What kernels are predicted to cost: by the decision that is taken, and by the next best ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import tvm
from tvm.tirx import PrimFunc

from tvmext.arch import Arch, CpuArch

from .choices import Choices
from .cost.model import CostModel
from .cpu.chosen import Chosen, chosen
from .memory import Memory
from .price import cycles
from .rule import Declined, Kernel, Rule
from .schedule import calls_of_kernels, constant_args
from .select import Decide, plain

RUNNERS_UP = 3


@dataclass(frozen=True)
class Candidate:
    """A decision as JSON has it, and the seconds it is predicted to take on one core."""

    decision: Any
    seconds: float | None


@dataclass(frozen=True)
class KernelPrices:
    """A kernel, called `calls` times in a run; `others` are the cheapest of what else could be.

    `chosen` says which variant is taken at which size. `why` is what records say, if there are any.
    Sizes that are known at run time only are priced at usual ones (levels.py).
    """

    kernel: str
    rule: str
    calls: int
    pick: Candidate
    others: tuple[Candidate, ...]
    listed: int
    chosen: tuple[Chosen, ...] = ()
    why: str = ""


def prices_of(
    mod: tvm.IRModule,
    arch: Arch,
    rules: Sequence[Rule],
    choices: Mapping[str, Choices],
    model: CostModel,
    decide: Decide,
) -> tuple[KernelPrices, ...]:
    """The prices of all kernels of a module that is to be scheduled, those of a run dearest first.

    GPUs have prices for the families that list candidates only.
    """
    constants, calls = constant_args(mod), calls_of_kernels(mod)
    found = []
    for var, func in mod.functions_items():
        if isinstance(func, PrimFunc):
            kernel = Kernel(var.name_hint, func, constants.get(var, frozenset()))
            count = sum(other.same_as(var) for other in calls)
            found.append(_prices(kernel, count, arch, rules, choices, model, decide))
    return tuple(sorted(found, key=lambda one: -(one.pick.seconds or 0.0) * one.calls))


def _prices(
    kernel: Kernel,
    calls: int,
    arch: Arch,
    rules: Sequence[Rule],
    choices: Mapping[str, Choices],
    model: CostModel,
    decide: Decide,
) -> KernelPrices:
    matches = ((rule, rule.match(kernel)) for rule in rules)
    rule, workload = next(pair for pair in matches if not isinstance(pair[1], Declined))
    pick, why = decide(rule, kernel, workload, arch)
    family = choices.get(rule.name)
    others = family.candidates(workload, arch) if family else ()
    listed = list(dict.fromkeys([pick, *others]))
    seconds = predicted(kernel, workload, listed, arch, family, model)
    priced = [Candidate(plain(one), price) for one, price in zip(listed, seconds)]
    best = sorted(priced[1:], key=lambda one: one.seconds or 0.0)[:RUNNERS_UP]
    variants = chosen(workload, pick, arch) if isinstance(arch, CpuArch) else ()
    return KernelPrices(
        kernel.name, rule.name, calls, priced[0], tuple(best), len(listed), variants, why
    )


def predicted(
    kernel: Kernel,
    workload: Any,
    decisions: Sequence[Any],
    arch: Arch,
    family: Choices | None,
    model: CostModel,
) -> list[float | None]:
    """Seconds on one core, of each of the decisions about a kernel; None where there is no price.

    Without a `family` that lists candidates all decisions have the price of what the kernel does.
    """
    if family:
        found: list[float | None] = model.seconds(family.terms(workload, decisions, arch)).tolist()
        return found
    if not isinstance(arch, CpuArch):
        return [None] * len(decisions)
    return [float(cycles(kernel, Memory(arch))) / (arch.ghz * 1e9)] * len(decisions)
