"""What the rules for light kernels share: a kernel as stages, a plan for them, and its emission."""

from __future__ import annotations

from functools import lru_cache

from tvmext.arch import CpuArch

from ..kernel.stages import Stages, stages
from ..kernel.view import view
from ..rule import Declined, Kernel, Scheduled
from .decision import NestPlan
from .guards import cut
from .nest import emit
from .plan import plan
from .quotients import split
from .softmax import with_bounds


@lru_cache(maxsize=16)  # several rules ask, and the price
def as_stages(kernel: Kernel) -> Stages | Declined:
    """The kernel's stages, or the reason why it has none."""
    seen = view(kernel.func)
    if isinstance(seen, Declined):
        return seen
    return Stages(
        tuple(split(piece) for stage in with_bounds(stages(seen)) for piece in cut(stage))
    )


class StagedRule:
    """`choose` and `apply` of a rule whose workload is a list of stages."""

    def choose(self, workload: Stages, arch: CpuArch) -> tuple[NestPlan, ...]:
        return plan(workload.stages, arch)

    def apply(
        self, kernel: Kernel, workload: Stages, decision: tuple[NestPlan, ...], arch: CpuArch
    ) -> Scheduled:
        return Scheduled(emit(kernel.func, workload.stages, decision))
