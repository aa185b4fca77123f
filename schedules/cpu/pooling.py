"""Pooling: a reduction over a window that slides along spatial axes, padding included.

Channels (NHWC) or the last spatial axis (NCHW) fill the vector; the window's loops are inside and
its accumulators stay in registers. The padded input is never stored.
"""

from __future__ import annotations

from ..kernel.analysis import variables
from ..kernel.stages import Stages
from ..rule import Declined, Kernel
from .staged import StagedRule, as_stages


class Pooling(StagedRule):
    """One reduction, some index of which adds a window axis to a spatial one."""

    name = "pooling"

    def match(self, kernel: Kernel) -> Stages | Declined:
        workload = as_stages(kernel)
        if isinstance(workload, Declined):
            return workload
        reductions = [stage for stage in workload.stages if stage.is_reduction]
        if len(reductions) != 1 or len(workload.stages) != 1:
            return Declined("it is not one reduction with what follows from it")
        stage = reductions[0]
        spatial = {axis.var for axis in stage.spatial}
        window = {axis.var for axis in stage.reduce}
        for load in stage.point.loads():
            for used in map(variables, load.indices):
                if used & spatial and used & window:
                    return workload
        return Declined("no window slides along a spatial axis")
