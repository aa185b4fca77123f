"""Kernels with one reduction: sums, means, extrema and arg-extrema over any axes.

    contiguous axis reduced     partial results in vector lanes, joined by halves
    any other axis reduced      one result per lane, reduction loops inside

What is computed from the result alone follows it in registers.
"""

from __future__ import annotations

from ..kernel.stages import Stages
from ..rule import Declined, Kernel
from .staged import StagedRule, as_stages


class Reduction(StagedRule):
    """Exactly one reduction stage, with elementwise stages around it."""

    name = "reduction"

    def match(self, kernel: Kernel) -> Stages | Declined:
        workload = as_stages(kernel)
        if isinstance(workload, Stages):
            count = sum(stage.is_reduction for stage in workload.stages)
            if count != 1:
                return Declined(f"it holds {count} reductions, not one")
        return workload
