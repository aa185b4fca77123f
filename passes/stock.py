"""TVM's own passes, with which ours are compared: what they make of movement, and of memory.

The list is that of `tvm.relax.pipeline.zero_pipeline` and `default_build_pipeline`, which agree
on lowering and planning; only the first fuses. Constants are folded with NumPy, where TVM compiles
a function for each, and operators are lowered to the same TIR as in our pipeline (transposed
convolutions to that for GPUs).
"""

from __future__ import annotations

import tvm
from tvm import relax
from tvm.relax import transform

from tvmext.frontends.model import Model

from .legalize import LEGALIZE
from .names import FuseOperators
from .pipeline import lowering, network


def stock_pipeline(model: Model, schedule: tvm.transform.Pass) -> list[tvm.transform.Pass]:
    """The passes, in order; the first takes ``model.mod``, `schedule` fused PrimFuncs."""
    return [
        *network(model),
        transform.DecomposeOpsForInference(),
        transform.DeadCodeElimination(),
        relax.backend.DispatchSampling(),
        relax.backend.DispatchSortScan(),
        transform.LegalizeOps(LEGALIZE),
        transform.AnnotateTIROpPattern(),
        FuseOperators(),
        transform.FuseTIR(),
        transform.DeadCodeElimination(),
        transform.RewriteDataflowReshape(),
        transform.DeadCodeElimination(),
        schedule,
        *lowering(transform.StaticPlanBlockMemory()),
    ]
