"""The passes from a model to a module that the virtual machine runs, as one flat list of phases."""

from __future__ import annotations

import tvm
from tvm import relax
from tvm.relax import transform

from tvmext.errors import OptionError
from tvmext.frontends.dims import usual_sizes
from tvmext.frontends.model import Model
from tvmext.options import Options

from . import layouts
from .align_inputs import AlignInputs
from .bind_model import BindModel
from .bound_indices import BoundIndices
from .capture_graphs import CaptureGraphs
from .cumulative import CumulativeReductions
from .decompose_batch_norm import DecomposeBatchNorm
from .decompose_stack import DecomposeStack
from .empty_constants import AllocateEmptyConstants
from .fold_affine import FoldAffine
from .fold_constants import FoldConstants
from .fold_padding import FoldPadding
from .fuse_attention import FuseAttention
from .fuse_rms_norm import FuseRmsNorm
from .join_kernels import Alike, JoinKernels, unlike
from .legalize import LEGALIZE, VIEWS
from .machine_calls import MachineCalls
from .name_matches import NameMatches
from .names import ConvertLayouts, FuseOperators, NameValues
from .plan_memory import PlanMemory
from .quantized.block_products import BlockProducts
from .quantized.decompose import DecomposeQuantize
from .quantized.float8_products import Float8Products, square_product
from .quantized.products import QuantizedProducts
from .quantized.sink import SinkDequantize
from .quantized.unsigned import UnsignedActivations
from .safe_division import SafeDivision
from .share_kernels import ShareKernels
from .transposed_convolution import AS_PRODUCTS
from .virtual.donate import UpdateDonated
from .virtual.join import JoinLoaders, Reading
from .virtual.narrow import NarrowRows
from .virtual.operands import JoinOperands
from .virtual.placement import JoinStores
from .virtual.views import Views
from .virtual.virtualize import VirtualTensors
from .widen_halves import HALVES, WidenHalves
from .zero_states import ZeroStates


def pipeline(
    model: Model,
    schedule: tvm.transform.Pass,
    reading: Reading,
    kind: str,
    options: Options,
    alike: Alike = unlike,
) -> list[tvm.transform.Pass]:
    """The passes of a compilation for `kind`, "llvm" or "cuda"; the first takes ``model.mod``.

    `schedule` turns the fused PrimFuncs of a module into scheduled ones (schedules/schedule.py,
    which knows the machine); `reading` prices one, `alike` tells which may be joined.
    """
    found = phases(model, schedule, reading, kind, options, alike)
    return [one for phase in found.values() for one in phase]


def phases(
    model: Model,
    schedule: tvm.transform.Pass,
    reading: Reading,
    kind: str,
    options: Options,
    alike: Alike = unlike,
) -> dict[str, list[tvm.transform.Pass]]:
    """The passes of `pipeline` by the name of their phase, in order; a phase may be empty."""

    def multiplies(dtype: str) -> bool:
        return reading(square_product(dtype), frozenset(), {})[0] in ("mma", "wgmma")

    # Before constants are folded: weights are seen as they are stored.
    integers = [
        *([Float8Products(multiplies)] if kind == "cuda" else []),
        BlockProducts(("float32",) if kind == "llvm" else ("float32", *HALVES)),
        UnsignedActivations(),
        SinkDequantize(),
        QuantizedProducts(),
        transform.CanonicalizeBindings(),
        transform.DeadCodeElimination(),
    ]

    def attends(func: tvm.tirx.PrimFunc) -> bool:
        return reading(func, frozenset(), {})[0] == "attention"

    virtual = options.opt_level >= 2 and options.virtual_tensors != "off"
    memory = options.virtual_tensors == "memory"
    normalise = [
        *_bound(model),
        *(integers if options.opt_level >= 1 else []),
        DecomposeQuantize(),
        WidenHalves(native=kind == "cuda"),
        FoldConstants(),
        DecomposeStack(),
        FoldPadding(),
        DecomposeBatchNorm(),
        transform.DeadCodeElimination(),
        FoldAffine(),
        transform.DecomposeOpsForInference(),
    ]
    layout = [ConvertLayouts(layouts.wanted)]
    clean = [
        FoldConstants(),
        transform.CanonicalizeBindings(),
        transform.EliminateCommonSubexpr(),
        transform.DeadCodeElimination(),
    ]
    lowerings = LEGALIZE if virtual else LEGALIZE | VIEWS
    if kind == "llvm":
        lowerings = lowerings | AS_PRODUCTS
    kernels = [
        *([CumulativeReductions()] if kind == "cuda" else []),
        relax.backend.DispatchSampling(),
        relax.backend.DispatchSortScan(),
        transform.LegalizeOps(lowerings),
        BoundIndices(),
        transform.AnnotateTIROpPattern(),
    ]
    # Loaders that fused with nobody are shared; a kernel that only renames elements is a view. Both
    # are told by kernels as they were before scheduling.
    fuse = [
        FuseOperators(),
        transform.FuseTIR(),
        transform.EliminateCommonSubexpr(),
        *(
            [
                JoinLoaders(reading, memory, model.dims),
                JoinStores(reading, memory, model.dims),
                JoinOperands(reading, model.dims),
            ]
            if virtual and kind == "llvm"
            else []
        ),
        Views(),
        UpdateDonated(_donated(model, options)),
        ShareKernels(model.dims),
        *([JoinKernels(alike)] if kind == "llvm" else []),
    ]
    return {
        "normalise": normalise,
        "layout": layout if options.opt_level >= 2 else [],
        "clean": [*clean, ZeroStates(), *([NarrowRows()] if virtual else [])],
        "attention": [
            *([FuseRmsNorm()] if options.opt_level >= 1 and kind == "llvm" else []),
            *([FuseAttention(attends, bands=kind == "cuda")] if options.opt_level >= 1 else []),
        ],
        "virtual-tensors": [VirtualTensors()] if virtual else [],
        "kernels": kernels,
        "fuse": fuse if options.opt_level >= 1 else [Views()],
        "schedule": [schedule, *([AlignInputs()] if kind == "llvm" else [])],
        "lower": [
            *lowering(
                PlanMemory(usual_sizes(model.dims)),
                *([CaptureGraphs()] if options.cuda_graph and kind == "cuda" else []),
            ),
            NameMatches(model),
        ],
    }


def network(model: Model) -> list[tvm.transform.Pass]:
    """What begins every pipeline: the network as its user wrote it, less what is known already."""
    return [*_bound(model), FoldConstants()]


def _bound(model: Model) -> list[tvm.transform.Pass]:
    return [NameValues(), BindModel(model), transform.CanonicalizeBindings()]


def _donated(model: Model, options: Options) -> list[int]:
    """The positions of the inputs that the caller gives away. Raises OptionError."""
    names = [spec.name for spec in model.inputs]
    for name in options.donate:
        if name not in names:
            raise OptionError(f"donate: there is no input '{name}'", hint=", ".join(names))
    return [names.index(name) for name in options.donate]


def lowering(planner: tvm.transform.Pass, *planned: tvm.transform.Pass) -> list[tvm.transform.Pass]:
    """What ends every pipeline: kernels become calls of the machine, `planner` shares memory.

    `planned` are passes over the plan.
    """
    return [
        transform.ToNonDataflow(),
        transform.RemovePurityChecking(),
        MachineCalls(),
        transform.CallTIRRewrite(),
        AllocateEmptyConstants(),
        planner,
        *planned,
        transform.LowerAllocTensor(),
        transform.KillAfterLastUse(),
        transform.LowerRuntimeBuiltin(),
        transform.ComputePrimValue(),
        transform.VMShapeLower(),
        SafeDivision(),
        transform.AttachGlobalSymbol(),
    ]
