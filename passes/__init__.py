"""Relax to kernels: `lower` runs the pipeline on a model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from tvmext.errors import OptionError

if TYPE_CHECKING:
    import tvm

    from tvmext.frontends.model import Model
    from tvmext.options import Options

    from .join_kernels import Alike
    from .virtual.join import Reading


def lower(
    model: Model,
    schedule: tvm.transform.Pass,
    reading: Reading,
    target: tvm.target.Target,
    options: Options,
    report: Callable[[str, str], None],
    count: int | None = None,
    alike: Alike | None = None,
) -> tvm.IRModule:
    """The module of `model` as VM calls and scheduled PrimFuncs, which code generation takes.

    `schedule` is the pass that schedules PrimFuncs for `target`, `reading` tells its rule and price
    of one and `alike` which ones may be joined; `report` is told of every pass as it begins. With a
    `count`, passes after the first so many are left out where they can be. Raises UnsupportedError
    for operators that no pass made a kernel of.
    """
    from .capture_graphs import refuse_scratch
    from .join_kernels import unlike
    from .pipeline import pipeline
    from .prefix import prefix
    from .unlegalized import refuse_unlegalized

    passes = pipeline(model, schedule, reading, target.kind.name, options, alike or unlike)
    if count is not None:
        passes = prefix(passes, count, target.kind.name)
    mod = run(passes, model.mod, target, options, report)
    if options.cuda_graph and target.kind.name == "cuda":
        refuse_scratch(mod)
    refuse_unlegalized(mod)
    return mod


def run(
    passes: Sequence[tvm.transform.Pass],
    mod: tvm.IRModule,
    target: tvm.target.Target,
    options: Options,
    report: Callable[[str, str], None],
    check: Callable[[tvm.IRModule, str], None] = lambda _mod, _name: None,
) -> tvm.IRModule:
    """What a list of passes makes of a module; `report` is told of every pass as it begins.

    `check` gets the module after each pass, and the name of the pass.
    """
    from tvm.ir.instrument import PassTimingInstrument

    from .instruments import Watch

    timing = PassTimingInstrument()
    watch = Watch(passes, options, lambda name: report("optimise", name))
    with target, _context(options, [watch, timing] if options.print_pass_times else [watch]):
        for each in passes:
            if each.info.name not in options.disabled_pass:  # TVM asks only inside of Sequential
                mod = each(mod)
                check(mod, each.info.name)
        if options.print_pass_times:
            print(timing.render(), flush=True)
    return mod


def _context(options: Options, instruments: list[Any]) -> tvm.transform.PassContext:
    """Raises OptionError for a pass configuration that TVM does not have."""
    import tvm

    try:
        return tvm.transform.PassContext(
            opt_level=3,
            disabled_pass=list(options.disabled_pass),
            config=dict(options.pass_config),
            instruments=instruments,
        )
    except AttributeError as error:  # what TVM raises for a wrong name or type
        names = sorted(tvm.transform.PassContext.list_configs())
        reason, _, _ = str(error).partition(" candidates are")
        raise OptionError(
            f"pass_config: {reason}", hint=f"KEY=VALUE with a key of {', '.join(names)}"
        ) from error
