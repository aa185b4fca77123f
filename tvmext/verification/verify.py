"""A compiled model against a reference, at one or several choices of sizes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from tvmext.errors import DimError, InputError, ModelError, TvmextError
from tvmext.runtime import CompiledModel

from .compare import Comparison, Override, Tolerance, Tolerances, compare, tolerance_of
from .cuts import first_wrong_step
from .divergence import Compiler, Search
from .inputs import choose_sizes, fixed_sizes, random_inputs
from .limits import index_limits
from .passes import first_change
from .reference import Arrays, Reference, check_choice, make_reference, read_arrays
from .report import Case, PassChange, Report
from .source import OnnxSource
from .steps import STEPS, steps

Sizes = Mapping[str, int | Sequence[int]]

SCHEDULING = "ScheduleKernels"
"""The pass that changes every kernel by itself."""


@dataclass(frozen=True)
class Passes:
    """The passes of a compilation: their names, and which of them cannot be left out.

    ``compiler(count, dims)`` compiles with the first `count` and those, and ``compiler(count, dims,
    kernels)`` schedules only the first so many kernels.
    """

    names: Sequence[str]
    needed: frozenset[str]
    compiler: Callable[..., CompiledModel]


def verify(
    model: Any,
    compiled: CompiledModel,
    *,
    inputs: str | Path | Mapping[str, np.ndarray] | None = None,
    dims: Sizes | None = None,
    seed: int = 0,
    reference: str | Path = "auto",
    rtol: Override = None,
    atol: Override = None,
    compiler: Compiler | None = None,
    passes: Passes | None = None,
    model_format: str | None = None,
    told: Callable[[str, str], None] = lambda _step, _detail: None,
) -> Report:
    """Run `compiled` and the reference on the same inputs and compare every output.

    `model` is what `compiled` was made from. `inputs` holds arrays by name, or is an .npz file that
    does; missing ones are random (see inputs.py), the same for the same `seed`. `dims` gives the
    sizes to verify at: one size for each dim, or a list, and lists are gone through together.
    `reference` is "auto", "onnxruntime", "onnx", or an .npz file with the expected outputs by name.
    `rtol` and `atol` replace the tolerance of the output's dtype (`compare.TOLERANCES`) and of its
    quantization (`steps.STEPS`), for all outputs or by name. With a `compiler`, a failure is traced
    to the first value in the graph that differs; with `passes`, to the first pass that changes
    results. `model_format`, "onnx" or "relax", is for files whose suffix does not say it. `told`
    hears of (step, detail) as work on it begins.

    Raises InputError, DimError or OptionError for arguments that do not fit, ModelError if the
    reference cannot load the model.
    """
    check_reference(model, reference, model_format)
    if isinstance(inputs, str | Path):
        inputs = read_arrays(Path(inputs), "inputs")
    given = dict(inputs or {})
    _check_names(given, compiled)
    if isinstance(model, bytearray | memoryview):
        model = bytes(model)
    source = OnnxSource(model) if _is_onnx(model, model_format) else None
    expected = _reference(source, reference)
    limits = index_limits(source.graph, source.shapes) if source else {}
    quantized = steps(source.graph, source.constants) if source else {}

    def tolerances(name: str, wanted: np.ndarray) -> Tolerance:
        return tolerance_of(name, wanted, rtol, atol, STEPS * quantized.get(name, 0.0))

    cases, failure = [], None
    for asked in _choices(dims or {}):
        sizes = choose_sizes(fixed_sizes(asked, given, compiled), compiled)
        told("verify", ", ".join(f"{name}={size}" for name, size in sizes.items()))
        arrays = random_inputs(compiled.inputs, sizes, limits, seed) | given
        case = Case(sizes, _outputs(compiled, expected, arrays, tolerances))
        cases.append(case)
        failure = failure or next(((o, arrays) for o in case.outputs if not o.passed), None)
    divergence = None
    if failure and compiler and source and expected.computes:
        output, arrays = failure
        bound = source.dims_of(compiled)
        told("look at every value", "")
        how = source, compiler, str(reference), arrays, bound, tolerances
        divergence = first_wrong_step(*how) or Search(*how).first_divergence(output.name)
    change = None
    if failure and passes:
        _, arrays = failure
        bound = source.dims_of(compiled) if source else _ranges(compiled)

        def outputs(variant: CompiledModel) -> tuple[Comparison, ...]:
            return _outputs(variant, expected, arrays, tolerances)

        change = _first_change(passes, bound, outputs, told)
    return Report(expected.title, tuple(cases), divergence, change)


def _first_change(
    passes: Passes,
    dims: Mapping[str, Any],
    outputs: Callable[[CompiledModel], tuple[Comparison, ...]],
    told: Callable[[str, str], None],
) -> PassChange:
    """The first pass with which some output differs, and if that schedules, the first kernel."""

    def differs(count: int, kernels: int | None = None) -> bool | None:
        more = "" if kernels is None else f", {kernels} kernels"
        told("bisect", f"{count} of {len(passes.names)} passes{more}")
        try:
            compiled = passes.compiler(count, dims, kernels)
            return not all(output.passed for output in outputs(compiled))
        except TvmextError:
            return None

    found = first_change(passes.names, passes.needed, differs)
    if found.passes != (SCHEDULING,):
        return found
    decisions = passes.compiler(found.place, dims).metadata.decisions
    among = first_change(list(decisions), (), lambda kernels: differs(found.place, kernels))
    kernels = {name: str(decisions[name]["rule"]) for name in among.passes}
    return replace(found, kernels=kernels, tried=found.tried + among.tried)


def _ranges(compiled: CompiledModel) -> dict[str, Any]:
    return {dim.title: (dim.low, dim.high) for dim in compiled.metadata.dims.values()}


def _is_onnx(model: Any, model_format: str | None) -> bool:
    if model_format:
        return model_format == "onnx"
    if isinstance(model, str | Path):
        return Path(model).suffix not in (".json", ".py")
    return isinstance(model, bytes) or type(model).__name__ == "ModelProto"


def check_reference(model: Any, choice: str | Path, model_format: str | None = None) -> None:
    """Raises what `verify` would raise for this reference, before anything is compiled."""
    check_choice(choice)
    if Path(choice).suffix != ".npz" and not _is_onnx(model, model_format):
        raise ModelError(
            "only ONNX models have a reference that computes",
            hint="save expected outputs with numpy.savez and give the .npz file as the reference",
        )


def _reference(source: OnnxSource | None, choice: str | Path) -> Reference:
    if Path(choice).suffix == ".npz":
        expected = read_arrays(Path(choice), "expected outputs")
        return Reference(str(choice), lambda _: expected, computes=False)
    assert source, "checked"
    return make_reference(source.for_reference(), str(choice))


def _check_names(given: Mapping[str, np.ndarray], compiled: CompiledModel) -> None:
    names = [spec.name for spec in compiled.inputs]
    if unknown := [name for name in given if name not in names]:
        raise InputError(
            f"the model has no input {', '.join(unknown)}",
            hint=f"its inputs are {', '.join(names)}",
        )


def _choices(dims: Sizes) -> list[dict[str, int]]:
    """{"batch": [1, 3], "seq": 8} -> [{"batch": 1, "seq": 8}, {"batch": 3, "seq": 8}]."""
    lists = {name: [size] if isinstance(size, int) else list(size) for name, size in dims.items()}
    count = max(map(len, lists.values()), default=1)
    if uneven := [name for name, sizes in lists.items() if len(sizes) not in (1, count)]:
        raise DimError(
            f"dim '{uneven[0]}' has {len(lists[uneven[0]])} sizes, another dim has {count}",
            hint="give every dim one size, or all of them lists of the same length",
        )
    return [{name: sizes[i % len(sizes)] for name, sizes in lists.items()} for i in range(count)]


def _outputs(
    compiled: CompiledModel, reference: Reference, arrays: Arrays, tolerances: Tolerances
) -> tuple[Comparison, ...]:
    expected, got = reference.run(arrays), compiled.run(arrays)
    if missing := [name for name in got if name not in expected]:
        raise InputError(
            f"{reference.title} has no output {', '.join(missing)}",
            hint=f"it has {', '.join(expected)}",
        )
    return tuple(
        compare(name, got[name], wanted, tolerances(name, wanted))
        for name, wanted in expected.items()
        if name in got
    )
