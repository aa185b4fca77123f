"""Measured choices: the best candidates of a network's kernels are timed, and what took how long is
recorded for `tvmext.compile` (schedules/records.py)."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tvmext.build import CompileRequest, Progress, compile_in_child
from tvmext.frontends.dims import DimSpec
from tvmext.model_file import request_for
from tvmext.options import Options

from .result import Tuned

__all__ = ["TOP", "Tuned", "tune", "tune_here"]

TOP = 4
"""Candidates of a kernel that are measured, the rule's own among them."""


def tune(
    model: Any,
    records: str | Path,
    target: Any = "llvm",
    dims: Mapping[str, DimSpec] | None = None,
    options: Options | None = None,
    *,
    top: int = TOP,
    seconds: float = float("inf"),
    again: bool = False,
    trust: bool = False,
    model_format: str | None = None,
    progress: Callable[[Progress], None] | None = None,
    output: Callable[[str], None] | None = None,
) -> Tuned:
    """Measure the `top` candidates of every kernel of `model` and append them to `records`.

    The candidates are those that the cost model of `options` prices least. What is in `records`
    already is not measured again, unless with `again`; after `seconds` no other kernel begins. The
    other arguments are those of `tvmext.compile`; `target` must be a CPU like this machine's.

    Raises what `tvmext.compile` raises, and OptionError for a target that cannot be measured here
    or records that cannot be read.
    """
    asked = {
        "records": str(Path(records).absolute()),
        "top": top,
        "seconds": seconds,
        "again": again,
    }
    with request_for(model, target, dims, options, trust, model_format, asked) as request:
        compile_in_child(request, progress, output, entry="tvmext.tuning:tune_here")
        tuned: Tuned = pickle.loads(Path(request.output).read_bytes())
        return tuned


def tune_here(request: CompileRequest, report: Callable[..., None]) -> None:
    """The child's side of `tune`: writes the `Tuned`, pickled, to ``request.output``."""
    from .session import tuned

    Path(request.output).write_bytes(pickle.dumps(tuned(request, report)))
