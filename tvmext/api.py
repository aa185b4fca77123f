"""The main job from top to bottom: a model comes in, a checked library goes out.

`compile` runs in the caller's process and only arranges the work; `compile_here` does it, in a
child process, room by room: frontends, passes, schedules, build.
"""

from __future__ import annotations

import hashlib
import pickle
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from . import verification
from .arch import target_fields
from .build import CompileRequest, Progress, compile_in_child
from .errors import OptionWarning
from .frontends.dims import DimSpec
from .model_file import request_for
from .options import Options
from .report import Explanation
from .runtime import CompiledModel, load
from .verification import Report
from .verification.verify import Passes

__all__ = ["compile", "compile_here", "explain", "load", "verify"]


def compile(
    model: Any,
    target: Any = "llvm",
    dims: Mapping[str, DimSpec] | None = None,
    options: Options | None = None,
    *,
    trust: bool = False,
    model_format: str | None = None,
    dump_prefix: str | Path | None = None,
    cache: str | None = None,
    progress: Callable[[Progress], None] | None = None,
    output: Callable[[str], None] | None = None,
) -> CompiledModel:
    """Compile a model; the result runs at once, and `CompiledModel.save` keeps it.

    `model` is the path of an ONNX, Relax JSON or (with `trust`, because it is run) TVMScript file,
    the bytes of an ONNX file, an ``onnx.ModelProto``, a ``torch.export.ExportedProgram``, an
    ``IRModule`` or ``(IRModule, params)``.
    `target` is "llvm" for this machine, or a TVM target as text, dict or object. `dims` binds a
    dim, ``{"batch": 4}``, or gives its range, ``{"batch": (1, 64)}``; a dim that is not named here
    may have any size.
    `model_format`, "onnx" or "relax", is for files whose suffix does not say it.
    Files of `options.dump_code` are named after `dump_prefix`, a path (default: the model's name).
    `cache` is the folder where kernels compiled for a GPU are kept, or "off"; by default
    $TVMEXT_CACHE, else ~/.cache/tvmext.
    `progress` hears of every step, `output` gets what compilation prints.

    Raises `tvmext.errors` types: ModelError, DimError and OptionError for what cannot be used,
    UnsupportedError for operators, ToolchainError without a linker, InternalError for a defect.
    Warns with OptionWarning of an input in `options.donate` that nothing updates.
    """
    with request_for(model, target, dims, options, trust, model_format) as request:
        prefix = Path(dump_prefix or Path(request.name).stem).absolute()
        chosen = replace(request, dump_prefix=str(prefix), cache=cache)
        compiled = _compiled(chosen, progress, output)
    updated = compiled.metadata.updated_inputs.values()
    for name in request.options.donate:
        if name not in updated:
            told = f"donate: nothing updates input '{name}' in place; a run leaves it as it is"
            warnings.warn(told, OptionWarning, stacklevel=2)
    return compiled


def _compiled(
    request: CompileRequest,
    progress: Callable[[Progress], None] | None = None,
    output: Callable[[str], None] | None = None,
) -> CompiledModel:
    compile_in_child(request, progress, output)
    return CompiledModel(request.output, deferred=True)


def explain(
    model: Any,
    target: Any = "llvm",
    dims: Mapping[str, DimSpec] | None = None,
    options: Options | None = None,
    *,
    trust: bool = False,
    model_format: str | None = None,
    progress: Callable[[Progress], None] | None = None,
    output: Callable[[str], None] | None = None,
) -> Explanation:
    """What becomes of the operators of a model that only move data, and what TVM makes of them.

    The arguments are those of `compile`; no code is generated. A free dim counts with its usual
    size if it has one, else with 64 or what its range says is nearest.
    """
    with request_for(model, target, dims, options, trust, model_format) as request:
        compile_in_child(request, progress, output, entry="tvmext.report:explain_here")
        explanation: Explanation = pickle.loads(Path(request.output).read_bytes())
        return explanation


def verify(
    model: Any,
    compiled: CompiledModel | str | Path | None = None,
    *,
    every_value: bool = False,
    bisect_passes: bool = False,
    trust: bool = False,
    progress: Callable[[Progress], None] = lambda _: None,
    **arguments: Any,
) -> Report:
    """Compare a compiled model with a reference: see `verification.verify` for the arguments.

    `compiled` is the model or its library, made from `model`; without it `model` is compiled for
    this machine. With `every_value`, a failure is traced to the first value that differs, with
    `bisect_passes` to the first pass that changes results. `trust` is as in `compile`.
    """
    form = arguments.get("model_format")
    verification.check_reference(model, arguments.get("reference", "auto"), form)
    if compiled is None:
        compiled = compile(model, trust=trust, model_format=form)
    elif not isinstance(compiled, CompiledModel):
        compiled = load(compiled)
    target = compiled.metadata.target
    options = replace(compiled.metadata.options, donate=())  # a variant may lack the input
    started = time.monotonic()

    def again(variant: Any, dims: Mapping[str, DimSpec]) -> CompiledModel:
        return compile(variant, target, dims, options)

    def with_passes(
        count: int, dims: Mapping[str, DimSpec], kernels: int | None = None
    ) -> CompiledModel:
        asked = {"passes": count, "kernels": kernels}
        with request_for(model, target, dims, options, trust, form, asked) as request:
            return _compiled(request)

    return verification.verify(
        model,
        compiled,
        compiler=again if every_value else None,
        passes=_passes(target, options, with_passes) if bisect_passes else None,
        told=lambda step, detail: progress(Progress(step, detail, time.monotonic() - started)),
        **arguments,
    )


def _passes(target: Any, options: Options, compiler: Callable[..., CompiledModel]) -> Passes:
    from .opt import passes_of
    from .passes.prefix import required

    names = [name for phase in passes_of(target, options).values() for name in phase]
    return Passes(names, required(target_fields(target)["kind"]), compiler)


def compile_here(request: CompileRequest, report: Callable[..., None]) -> None:
    """Compile in this process and write ``request.output``; the child's side of `compile`."""
    import tvm

    from .arch import resolve, to_target
    from .artifact import ArtifactMetadata, KernelCall
    from .build.cuda import toolchain_for
    from .build.dump import dump
    from .build.kernels import build_module
    from .build.link import link
    from .build.results import results_in_inputs, results_in_weights
    from .passes import lower
    from .passes.align_inputs import input_alignment
    from .report.sizes import Sizes
    from .report.trace import network_of
    from .report.work import calls_of
    from .schedules.rules import decide_for, price_for, rules_for
    from .schedules.schedule import ScheduleKernels

    model = request.load(report)
    arch = resolve(request.target)
    toolchain = toolchain_for(arch, request.options, request.cache)
    chosen = to_target(arch)
    target = tvm.target.Target(chosen)

    net = network_of(model, target, Sizes({}), report)
    calls: list[KernelCall] = []

    def seen(kernels: tvm.IRModule) -> None:
        calls.extend(calls_of(kernels, net))

    rules, decide = rules_for(arch, request.options), decide_for(arch, request.options)
    price = price_for(arch, request.options)
    schedule = ScheduleKernels(arch, rules, seen, decide, request.asked.get("kernels"), price)
    mod = lower(
        model,
        schedule,
        schedule.reading,
        target,
        request.options,
        report,
        request.asked.get("passes"),
        schedule.alike,
    )

    metadata = ArtifactMetadata(
        inputs=model.inputs,
        outputs=model.outputs,
        dims=model.dims,
        guards=model.guards,
        target=chosen,
        options=request.options,
        source=request.name,
        model_sha256=_sha256(request.model),
        decisions=schedule.decisions(),
        calls=tuple(calls),
        versions={"tvm": tvm.__version__},
        weight_outputs=tuple(model.outputs[i].name for i in results_in_weights(mod)),
        input_alignment=input_alignment(mod),
        updated_inputs={
            model.outputs[i].name: model.inputs[k].name
            for i, k in results_in_inputs(mod).items()
            if model.inputs[k].name in request.options.donate
        },
    )
    report("build", "")
    if toolchain:
        toolchain.register()
    executable = build_module(
        mod, target, metadata.to_json(), report, one_by_one=request.one_by_one
    )
    if toolchain:
        told = replace(metadata, usage=toolchain.report())
        executable = replace(executable, metadata=told.to_json())
        report("build", f"{toolchain.compiled} of {len(toolchain.usage)} kernels were compiled")
    dump(request.options.dump_code, mod, executable.code, Path(request.dump_prefix))
    report("link", "")
    link(executable, Path(request.output))


def _sha256(path: str) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
