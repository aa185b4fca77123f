"""What becomes of the movement in a network: how it is found out, and how it is shown."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from tvmext.build import CompileRequest

from .explanation import Explanation

__all__ = ["Explanation", "explain_here"]


def explain_here(request: CompileRequest, report: Callable[..., None]) -> None:
    """Write the `Explanation` of a model, pickled, to ``request.output``.

    The child's side of `tvmext.explain`: it compiles up to the kernels, which are not scheduled and
    for which no code is generated.
    """
    import tvm

    from tvmext.arch import flags, resolve, to_target
    from tvmext.frontends.dims import usual_sizes
    from tvmext.schedules.prices import prices_of
    from tvmext.schedules.rules import choices_for, cost_model_for, decide_for, rules_for

    from . import trace
    from .explanation import explain
    from .sizes import Sizes

    model = request.load(report)
    arch = resolve(request.target)
    chosen = to_target(arch)
    target, sizes = tvm.target.Target(chosen), Sizes(usual_sizes(model.dims))
    net = trace.network_of(model, target, sizes, report)
    options = request.options
    ours, kernels = trace.ours(model, target, sizes, options, report)
    report("price", "")
    prices = prices_of(
        kernels,
        arch,
        rules_for(arch, options),
        choices_for(arch, options),
        cost_model_for(arch, options),
        decide_for(arch, options),
    )
    stock = trace.stock(model, target, sizes, report)
    explanation = explain(request.name, " ".join(flags(chosen)), sizes.dims, net, stock, ours)
    explanation = replace(explanation, prices=prices)
    Path(request.output).write_bytes(pickle.dumps(explanation))
