"""What TVM itself makes of a model, as a library that runs like ours."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tvmext.build import CompileRequest


def compile_stock(request: CompileRequest, report: Callable[..., None]) -> None:
    """Compile with TVM's own passes and default schedules; the child's side of a compilation."""
    import tvm

    from tvmext.arch import resolve, to_target
    from tvmext.artifact import ArtifactMetadata
    from tvmext.build.kernels import build_module
    from tvmext.build.link import link
    from tvmext.build.results import results_in_weights
    from tvmext.passes import run
    from tvmext.passes.stock import stock_pipeline

    model = request.load(report)
    chosen = to_target(resolve(request.target))
    target = tvm.target.Target(chosen)
    passes = stock_pipeline(model, tvm.transform.Sequential([]))
    mod = run(passes, model.mod, target, request.options, report)
    metadata = ArtifactMetadata(
        inputs=model.inputs,
        outputs=model.outputs,
        dims=model.dims,
        guards=model.guards,
        target=chosen,
        source=request.name,
        versions={"tvm": tvm.__version__},
        weight_outputs=tuple(model.outputs[i].name for i in results_in_weights(mod)),
    )
    report("build", "")
    executable = build_module(mod, target, metadata.to_json(), report)
    report("link", "")
    link(executable, Path(request.output))
