"""A lowered module becomes an executable: bytecode for the virtual machine, code for kernels."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import tvm
from tvm import relax
from tvm.tirx import PrimFunc

from tvmext.schedules.cpu.functions import called_by
from tvmext.schedules.rule import OWN_ADDRESSES

from . import brain_floats
from .weights import detach

METADATA_FUNCTION = "tvmext_metadata"
"""The function of a library that returns its metadata as a JSON string."""

_NEEDLESS = (
    "s_tir.CompactBufferAllocation",
    "s_tir.InjectPermutedLayout",
    "s_tir.InjectVirtualThread",
    "s_tir.ThreadSync",
    "tirx.CommonSubexprElim",
    "tirx.RemoveNoOp",
)
"""Passes that kernels for CPUs gain nothing by. Most find nothing there; LLVM finds what is common to
expressions, and has less to do where it was not named before (a fifth of U-Net's code generation).
The first one, whose schedules allocate no more than they use, takes a third of the time of all that
lower unrolled tiles, and makes the size of a buffer depend on a loop inside of which it is read
(SegFormer with free sizes)."""

_LLVM_OPTIONS = ("-unroll-threshold-aggressive:uint=120",)
"""LLVM's own limit is 300 instructions. Schedules unroll what they mean to; what LLVM then unrolls as
well is mostly what stands around the sum of a tile, such as 3 x 3 places of a weight: nine copies of
the tile, in a convolution of free sizes nine of every height, and half of the time of such a kernel.
"""

_OWN_ADDRESSES = ("-disable-lsr",)
"""For kernels that have `schedules.rule.OWN_ADDRESSES`. Loop strength reduction, which tries many
ways to step through memory, is half of what the machine code of a dynamic convolution costs."""

Report = Callable[[str, str], None]
"""report(step, detail): says what is being worked on; detail may be empty."""


@dataclass(frozen=True)
class Executable:
    """What `build_module` returns and `link` writes: code, with the large weights beside it."""

    code: relax.VMExecutable
    weights: list[tvm.runtime.Tensor]
    metadata: str
    on_gpu: bool = False


def build_module(
    mod: tvm.IRModule,
    target: tvm.target.Target,
    metadata: str,
    report: Report,
    *,
    one_by_one: bool = False,
) -> Executable:
    """Generate code for a module that the pipeline has lowered to VM calls and scheduled PrimFuncs.

    `metadata` becomes the result of a function of its own (`METADATA_FUNCTION`). With `one_by_one`
    every kernel is first built alone and reported, which names the one that crashes LLVM.
    """
    if one_by_one:
        _build_alone(mod, target, report)
    kernels = sum(isinstance(function, PrimFunc) for function in mod.functions.values())
    report("build", f"{kernels} kernels")
    mod, weights = detach(_with_metadata(mod, metadata))
    with code_generation(target):
        code = _generated(mod, target)
    return Executable(code, weights, metadata, str(target.kind.name) == "cuda")


def code_generation(target: tvm.target.Target) -> tvm.transform.PassContext:
    """How TVM is to generate code for `target`.

    CUDA's compiler unrolls loops where it is told to. Before it they would only grow the source:
    DenseNet-121 is 0.6 MB of CUDA C++ that way, not 5.9, and 12 s of NVRTC, not some 350.
    """
    cuda = str(target.kind.name) == "cuda"
    if cuda:
        return tvm.transform.PassContext(config={"tirx.UnrollLoop": {"explicit_unroll": 0}})
    return tvm.transform.PassContext(disabled_pass=list(_NEEDLESS))


def code_target(target: tvm.target.Target, own_addresses: bool = False) -> tvm.target.Target:
    """`target` with what LLVM is told beside, for kernels with `OWN_ADDRESSES` or for others."""
    if not _is_cpu(target):
        return target
    options = _LLVM_OPTIONS + (_OWN_ADDRESSES if own_addresses else ())
    return tvm.target.Target({**target.export(), "cl-opt": list(options)})


def _is_cpu(target: tvm.target.Target) -> bool:
    return str(target.kind.name) == "llvm"


def _generated(mod: tvm.IRModule, target: tvm.target.Target) -> relax.VMExecutable:
    """Bytecode and kernels; those with `OWN_ADDRESSES` are a module of LLVM's of their own."""
    pipeline = kernel_pipeline(target)
    own = {gvar: f for gvar, f in mod.functions.items() if _has_own_addresses(f)}
    if own:
        alone = tvm.IRModule(_complete(own))
        built = tvm.tirx.build(alone, code_target(target, own_addresses=True), pipeline)
        mod = mod.with_attr("external_mods", [built])
    rest = {gvar: f for gvar, f in mod.functions.items() if gvar not in own}
    mod = tvm.IRModule(_complete(rest), attrs=mod.attrs, global_infos=mod.global_infos)
    return relax.build(mod, code_target(target), relax_pipeline=None, tir_pipeline=pipeline)


def _has_own_addresses(function: tvm.ir.BaseFunc) -> bool:
    return isinstance(function, PrimFunc) and OWN_ADDRESSES in function.attrs


def _complete(functions: Mapping[Any, tvm.ir.BaseFunc]) -> dict[Any, tvm.ir.BaseFunc]:
    """Kernels, and the functions that they call."""
    kernels = [function for function in functions.values() if isinstance(function, PrimFunc)]
    return {**functions, **called_by(kernels)}


def build_kernels(
    functions: Mapping[str, PrimFunc], target: tvm.target.Target
) -> tvm.runtime.Module:
    """Code for scheduled kernels, by their symbols, as `build_module` makes it for a network's."""
    named = {name: func.with_attr("global_symbol", name) for name, func in functions.items()}
    pipeline = kernel_pipeline(target)
    built = []
    with target, code_generation(target):
        for own in (False, True):
            some = {name: f for name, f in named.items() if _has_own_addresses(f) == own}
            if some:
                chosen = code_target(target, own)
                built.append(tvm.tirx.build(tvm.IRModule(_complete(some)), chosen, pipeline))
    library, *more = built
    for module in more:
        library.import_module(module)
    return library


def kernel_pipeline(target: tvm.target.Target) -> str:
    """The name of TVM's pipeline for the kernels of `target`."""
    if str(target.kind.name) != "llvm":
        return "s_tir"
    brain_floats.register()
    return brain_floats.PIPELINE


def _with_metadata(mod: tvm.IRModule, text: str) -> tvm.IRModule:
    function = relax.Function([], tvm.ir.StringImm(text), tvm.ir.StringType())
    mod = tvm.IRModule(dict(mod.functions), attrs=mod.attrs, global_infos=mod.global_infos)
    mod[METADATA_FUNCTION] = function.with_attr("global_symbol", METADATA_FUNCTION)
    return mod


def _build_alone(mod: tvm.IRModule, target: tvm.target.Target, report: Report) -> None:
    for gvar, function in mod.functions.items():
        if isinstance(function, PrimFunc):
            report("build", f"function {gvar.name_hint}")
            alone = tvm.IRModule(_complete({gvar: function}), attrs=mod.attrs)
            chosen = code_target(target, _has_own_addresses(function))
            tvm.tirx.build(alone, chosen, kernel_pipeline(target))
