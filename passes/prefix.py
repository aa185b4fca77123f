"""The beginning of a pipeline, and what of its rest a library needs: who changes results?"""

from __future__ import annotations

from collections.abc import Sequence

import tvm

REQUIRED = frozenset(
    {
        *("NameValues", "BindModel"),
        *("DecomposeQuantize", "WidenHalves", "DecomposeBatchNorm", "DecomposeOps"),
        *("DispatchSampling", "DispatchSortScan", "LegalizeOps"),
        *("ToNonDataflow", "RemovePurityChecking", "MachineCalls", "CallTIRRewrite"),
        *("LowerAllocTensor", "LowerRuntimeBuiltin", "ComputePrimValue", "VMShapeLower"),
        "AttachGlobalSymbol",
    }
)
"""Passes without which most networks do not become a library. Kernels for CPUs need no schedule."""

ON_GPU = REQUIRED | {"ScheduleKernels"}


def required(kind: str) -> frozenset[str]:
    """The names of the passes that libraries of a kind of target need."""
    return ON_GPU if kind == "cuda" else REQUIRED


def prefix(passes: Sequence[tvm.transform.Pass], count: int, kind: str) -> list[tvm.transform.Pass]:
    """The first `count` passes, and those after them that cannot be left out."""
    needed = required(kind)
    return [*passes[:count], *(p for p in passes[count:] if p.info.name in needed)]
