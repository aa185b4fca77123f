"""Kernels without a reduction: arithmetic, broadcasts, transposes, slices, concat, gather, resize.

Every operator is expanded into the stores of the outputs. Axes along which all accesses move
together are walked as one, in vectors, remainder included.
"""

from __future__ import annotations

from ..kernel.stages import Stages
from ..rule import Declined, Kernel
from .staged import StagedRule, as_stages


class Elementwise(StagedRule):
    """Spatial stages only."""

    name = "elementwise"

    def match(self, kernel: Kernel) -> Stages | Declined:
        workload = as_stages(kernel)
        if isinstance(workload, Stages) and any(s.is_reduction for s in workload.stages):
            return Declined("it holds a reduction")
        return workload
