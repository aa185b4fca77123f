"""The passes from a Relax module to one that the virtual machine runs, as one flat list."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import tvm
from tvm import relax
from tvm.relax import transform

from .decompose_batch_norm import DecomposeBatchNorm
from .fold_affine import FoldAffine
from .fold_constants import FoldConstants

CONV_LAYOUT = {"relax.nn.conv2d": ["NHWC", "OHWI"]}


def pipeline(
    params: Mapping[str, np.ndarray], schedule: tvm.transform.Pass
) -> list[tvm.transform.Pass]:
    """The passes of a CPU compilation.

    `params` are main's weights by parameter name; `schedule` turns the fused PrimFuncs of a module
    into scheduled ones (schedules/schedule.py, which knows the machine).
    """
    return [
        # Normalise: weights are constants, one way to write each thing.
        transform.BindParams("main", dict(params)),
        transform.CanonicalizeBindings(),
        FoldConstants(),
        DecomposeBatchNorm(),
        transform.DeadCodeElimination(),
        FoldAffine(),
        transform.DecomposeOpsForInference(),
        # Layout: channels last, so that they fill the vectors.
        transform.ConvertLayout(CONV_LAYOUT),
        FoldConstants(),
        transform.CanonicalizeBindings(),
        transform.EliminateCommonSubexpr(),
        transform.DeadCodeElimination(),
        # Kernels: one TIR function for each operator, then for each fused group.
        relax.backend.DispatchSampling(),
        relax.backend.DispatchSortScan(),
        transform.LegalizeOps(),
        transform.AnnotateTIROpPattern(),
        transform.FuseOps(),
        transform.FuseTIR(),
        transform.DeadCodeElimination(),
        schedule,
        # Lower: buffers planned, shapes computed, calls in the form the machine executes.
        transform.RewriteDataflowReshape(),
        transform.ToNonDataflow(),
        transform.RemovePurityChecking(),
        transform.CallTIRRewrite(),
        transform.StaticPlanBlockMemory(),
        transform.LowerAllocTensor(),
        transform.KillAfterLastUse(),
        transform.LowerRuntimeBuiltin(),
        transform.ComputePrimValue(),
        transform.VMShapeLower(),
        transform.AttachGlobalSymbol(),
    ]
