"""Which rules schedule for which kind of machine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from tvmext.arch import Arch, CudaArch
from tvmext.options import WINOGRAD, Options

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .choices import Choices
    from .rule import Rule
    from .select import Decide


def rules_for(arch: Arch, options: Options) -> tuple[Rule, ...]:
    """The rules for `arch`, in the order in which they are asked; the last one takes everything.

    Raises OptionError for a cost model that cannot be used; GPUs have the analytic one only.
    """
    if isinstance(arch, CudaArch):
        from . import cuda

        return cuda.rules(arch, tf32=options.tf32)
    from . import cpu
    from .cost.weights import ANALYTIC, cost_model

    chosen = None if options.cost_model == ANALYTIC else cost_model(options.cost_model)
    return cpu.rules(WINOGRAD[options.winograd], chosen)


def choices_for(arch: Arch, options: Options) -> Mapping[str, Choices]:
    """What the rules for `arch` may decide, for those that a cost model may choose for, by name."""
    if isinstance(arch, CudaArch):
        from .cuda.choices import choices as cuda_choices

        return cuda_choices()
    from .cpu.choices import choices

    return choices(WINOGRAD[options.winograd])


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
