"""Kernels that reduce a row and use the result on the row: softmax, layer, RMS, group norm.

    for row: reduce; ...; reduce; write the row

The stages share the loops over rows, so that a row is read from memory once and stays in L1.
"""

from __future__ import annotations

from ..kernel.stages import Stages
from ..rule import Declined, Kernel
from .staged import StagedRule, as_stages


class Normalization(StagedRule):
    """Several stages, a reduction among them."""

    name = "normalization"

    def match(self, kernel: Kernel) -> Stages | Declined:
        workload = as_stages(kernel)
        if isinstance(workload, Stages):
            if len(workload.stages) < 2:
                return Declined("it has a single stage")
            if not any(stage.is_reduction for stage in workload.stages):
                return Declined("it holds no reduction")
        return workload
