"""Some passes of the pipeline on a module, for people who write passes: what `tvmext opt` runs."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .build import CompileRequest, Progress, compile_in_child
from .errors import CheckFailed, TvmextError
from .frontends.dims import DimSpec
from .model_file import request_for
from .options import Options

if TYPE_CHECKING:
    import tvm

    from .frontends.model import Model

FORMS = ("text", "script", "json")
"""Text is TVMScript without the weights, script a program that makes the module, JSON is data."""


def opt(
    model: Any,
    passes: Sequence[str] = (),
    target: Any = "llvm",
    dims: Mapping[str, DimSpec] | None = None,
    options: Options | None = None,
    *,
    form: str = "text",
    check: bool = True,
    trust: bool = False,
    model_format: str | None = None,
    progress: Callable[[Progress], None] | None = None,
    output: Callable[[str], None] | None = None,
) -> str:
    """The module that `passes`, in this order, make of a model, in one of `FORMS`.

    A pass is named as `passes_of` names it, or by its phase. With `check` the module must be
    well-formed after each. The other arguments are those of `tvmext.compile`.

    Raises OptionError for a name that is none, CheckFailed for a pass that breaks the module or
    that cannot be run on it, and what `tvmext.compile` raises for a model that cannot be read.
    """
    asked = {"passes": list(passes), "check": check, "form": form}
    with request_for(model, target, dims, options, trust, model_format, asked) as request:
        compile_in_child(request, progress, output, entry="tvmext.opt:opt_here")
        return Path(request.output).read_text(encoding="utf-8")


def passes_of(target: Any = "llvm", options: Options | None = None) -> dict[str, list[str]]:
    """The names of the passes of a compilation, by the name of their phase, in order."""
    import tvm

    from .frontends.model import Model

    nothing = Model(tvm.IRModule({}), {}, (), ())
    phases, _ = _phases(nothing, target, options or Options())
    return {phase: [each.info.name for each in passes] for phase, passes in phases.items()}


def opt_here(request: CompileRequest, report: Callable[..., None]) -> None:
    """The child's side of `opt`: writes the module to ``request.output``."""
    model = request.load(report)
    asked = request.asked
    mod = apply(model, asked["passes"], request.target, request.options, asked["check"], report)
    Path(request.output).write_text(written(mod, model, asked["form"]), encoding="utf-8")


def apply(
    model: Model,
    names: Sequence[str],
    target: Any,
    options: Options,
    check: bool = True,
    report: Callable[..., None] = lambda *_: None,
) -> tvm.IRModule:
    """What the named passes make of ``model.mod``, in this process."""
    from .passes import run
    from .passes.named import check_well_formed, chosen

    phases, chosen_target = _phases(model, target, options)
    running = ["the frontend"]

    def told(step: str, name: str) -> None:
        running[0] = name
        report(step, name)

    checks = check_well_formed if check else lambda _mod, _name: None
    checks(model.mod, running[0])
    try:
        return run(chosen(phases, names), model.mod, chosen_target, options, told, checks)
    except TvmextError:
        raise
    except Exception as error:  # a pass says in its own way what it does not take
        reason = str(error).strip().splitlines()[-1]
        raise CheckFailed(
            f"{running[0]} cannot be run on this module: {reason}",
            hint="passes build on what those before them made: see tvmext opt --list-passes",
        ) from error


def _phases(model: Model, target: Any, options: Options) -> tuple[dict[str, list[Any]], Any]:
    """The passes of a compilation by phase, and their target."""
    import tvm

    from .arch import resolve, to_target
    from .passes.pipeline import phases
    from .schedules.rules import rules_for
    from .schedules.schedule import ScheduleKernels

    arch = resolve(target)
    schedule = ScheduleKernels(arch, rules_for(arch, options))
    chosen_target = tvm.target.Target(to_target(arch))
    kind = str(chosen_target.kind.name)
    found = phases(model, schedule, schedule.reading, kind, options, schedule.alike)
    return found, chosen_target


def written(mod: tvm.IRModule, model: Model, form: str) -> str:
    """A module in one of `FORMS`; weights that are parameters still travel as in `relax.save`."""
    if form == "text":
        return str(mod.script(show_meta=False)) + "\n"
    mod = _with_weights(mod, model)
    if form == "json":
        import tvm

        return str(tvm.ir.save_json(mod))
    # TVM reads annotations from the source; as Python some would not evaluate (T.Buffer((n, 4)))
    head = "from __future__ import annotations\n\nimport tvm\n"
    found = str(mod.script(show_meta=True))
    return head + re.sub(r"^# (?=(from|import) )", "", found, flags=re.MULTILINE) + "\n"


def _with_weights(mod: tvm.IRModule, model: Model) -> tvm.IRModule:
    import numpy as np
    import tvm

    main = mod["main"]
    if not model.params or len(main.params) == len(model.inputs):
        return mod
    tensors = [tvm.runtime.tensor(np.ascontiguousarray(a)) for a in model.params.values()]
    mod = mod.clone()
    mod["main"] = main.with_attr("params", tensors)
    return mod
