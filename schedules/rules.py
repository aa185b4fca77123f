"""Which rules schedule for which kind of machine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from tvmext.arch import Arch, CudaArch
from tvmext.options import WINOGRAD, Options

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .choices import Choices
    from .cost.model import CostModel
    from .rule import Kernel, Rule
    from .select import Decide, Price


def rules_for(arch: Arch, options: Options) -> tuple[Rule, ...]:
    """The rules for `arch`, in the order in which they are asked; the last one takes everything.

    Raises OptionError for a cost model that cannot be used; GPUs have the analytic one only.
    """
    if isinstance(arch, CudaArch):
        from . import cuda

        return cuda.rules(arch, tf32=options.tf32)
    from . import cpu
    from .cost.weights import ANALYTIC

    chosen = None if options.cost_model == ANALYTIC else cost_model_for(arch, options)
    return cpu.rules(WINOGRAD[options.winograd], chosen)


def cost_model_for(arch: Arch, options: Options) -> CostModel:
    """What predicts seconds; GPUs have the analytic model only. Raises OptionError."""
    from .cost.weights import ANALYTIC, cost_model

    return cost_model(ANALYTIC if isinstance(arch, CudaArch) else options.cost_model)


def choices_for(arch: Arch, options: Options) -> Mapping[str, Choices]:
    """What the rules for `arch` may decide, for those that a cost model may choose for, by name."""
    if isinstance(arch, CudaArch):
        from .cuda.choices import choices as cuda_choices

        return cuda_choices()
    from .cpu.choices import choices

    return choices(WINOGRAD[options.winograd])


def price_for(arch: Arch, options: Options) -> Price:
    """What predicts the seconds of a decision."""
    from .prices import predicted

    families, model = choices_for(arch, options), cost_model_for(arch, options)

    def price(rule: Rule, kernel: Kernel, workload: Any, decision: Any) -> float | None:
        family = families.get(rule.name)
        return predicted(kernel, workload, [decision], arch, family, model)[0]

    return price


def decide_for(arch: Arch, options: Options) -> Decide:
    """What makes the decisions: the rules, or with records those where they fit.

    Raises OptionError for records that cannot be read.
    """
    from .select import by_rule

    if not options.records:
        return by_rule
    from .records import Recorded, read

    records = read(Path(options.records))
    if records.ignored:
        print(f"warning: {options.records}: {records.ignored_text()}", flush=True)
    return Recorded(records, choices_for(arch, options))
