"""Candidates of a workload as one library: many kernels per ``.so``, so that linking costs little.

What dominates is LLVM: 50 to 150 ms for a candidate, half of it optimisation, half machine code.
Lowering the graph takes 20 to 80 ms once, a rule's `apply` 1 to 4 ms.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import tvm
from tvm.tirx import PrimFunc

from tvmext import frontends
from tvmext.arch import Arch, CpuArch, to_target
from tvmext.options import Options
from tvmext.passes import run
from tvmext.passes.catch import Catch
from tvmext.passes.pipeline import pipeline
from tvmext.schedules.choices import Choices
from tvmext.schedules.cost.terms import VERSION, Terms
from tvmext.schedules.rule import Declined, Kernel, Rule
from tvmext.schedules.rules import choices_for, rules_for
from tvmext.schedules.schedule import ScheduleKernels, constant_args
from tvmext.schedules.select import plain
from tvmext.tuning.library import write_library

from .workloads import Spec, graph, key

MOST = 14
"""Candidates of a kernel that are built."""

CHEAPEST = 6
"""So many of them by their analytic price, the others drawn from all."""

PRODUCTS = ("gemm", "conv", "depthwise", "attention", "mma")
"""Rules whose kernels count alone where a graph has one: the others stand at its edges."""

OPTIONS = Options(winograd="f4", tf32=True)
"""Whatever may be chosen anywhere."""


@dataclass(frozen=True)
class Found:
    """A kernel of a workload, the rule that takes it, and what that may decide."""

    kernel: Kernel
    rule: Rule
    choices: Choices
    workload: Any


@dataclass(frozen=True)
class Unit:
    """A library of candidates, in terms of JSON.

    `items` have "symbol", "rule", "decision", "picked", "terms" and "params", a list of shape and
    dtype for each argument.
    """

    name: str
    spec: dict[str, Any]
    arch: dict[str, Any]
    features: int
    items: list[dict[str, Any]]


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def build(
    spec: Spec,
    arch: Arch,
    folder: Path,
    *,
    most: int = MOST,
    seed: int = 0,
    cores: Sequence[int] = (),
) -> Unit:
    """Write ``name.so`` and ``name.json``, the latter last and at once, into `folder`.

    Of several `cores` of a CPU the workload's name tells which number its kernels are made for.
    """
    folder.mkdir(parents=True, exist_ok=True)
    name = digest(key(spec))
    if cores and isinstance(arch, CpuArch):
        arch = replace(arch, cores=cores[int(name, 16) % len(cores)])
    functions: dict[str, PrimFunc] = {}
    items: list[dict[str, Any]] = []
    for found in kernels(spec, arch):
        for item, func in _candidates(found, arch, most, np.random.default_rng([seed, len(items)])):
            item["symbol"] = f"candidate_{len(items)}"
            functions[item["symbol"]] = func
            items.append(item)
    described = {
        field: sorted(value) if isinstance(value, frozenset) else value
        for field, value in asdict(arch).items()
    }
    unit = Unit(name, dict(spec), described, VERSION, items)
    if items:
        write_library(functions, arch, OPTIONS, folder / f"{name}.so")
    unfinished = folder / f".{name}.json.tmp"
    unfinished.write_text(json.dumps(asdict(unit)))
    os.replace(unfinished, folder / f"{name}.json")
    return unit


def kernels(spec: Spec, arch: Arch) -> list[Found]:
    """The kernels of a workload that leave something to choose."""
    mod = _fused(spec, arch)
    constants, rules = constant_args(mod), rules_for(arch, OPTIONS)
    listed = choices_for(arch, OPTIONS)
    found = []
    for var, func in mod.functions_items():
        if isinstance(func, PrimFunc):
            kernel = Kernel(var.name_hint, func, constants.get(var, frozenset()))
            rule, workload = _match(kernel, rules)
            if rule.name in listed:
                found.append(Found(kernel, rule, listed[rule.name], workload))
    products = [one for one in found if one.rule.name in PRODUCTS]
    return products or found


def _match(kernel: Kernel, rules: Sequence[Rule]) -> tuple[Rule, Any]:
    for rule in rules:
        workload = rule.match(kernel)
        if not isinstance(workload, Declined):
            return rule, workload
    raise AssertionError("the last rule takes everything")


def _fused(spec: Spec, arch: Arch) -> tvm.IRModule:
    """The fused kernels of a workload, as rules see them."""
    with tempfile.TemporaryDirectory(prefix="tvmext-collect-") as folder:
        path = Path(folder) / "model.onnx"
        onnx.save(graph(spec).model(), path)
        model = frontends.load(path)
    capture = Catch()
    reading = ScheduleKernels(arch, rules_for(arch, OPTIONS)).reading
    target = tvm.target.Target(to_target(arch))
    passes = pipeline(model, capture, reading, str(target.kind.name), OPTIONS)
    run(passes[: passes.index(capture) + 1], model.mod, target, OPTIONS, lambda *_: None)
    return capture.mod


def _candidates(
    found: Found, arch: Arch, most: int, rng: np.random.Generator
) -> Iterator[tuple[dict[str, Any], PrimFunc]]:
    decisions = found.choices.candidates(found.workload, arch)
    terms = found.choices.terms(found.workload, decisions, arch)
    if len(decisions) < 2:
        return
    columns = terms.plain()
    for number in stratified(terms, most, rng):
        decision = decisions[number]
        scheduled = found.rule.apply(found.kernel, found.workload, decision, arch)
        yield (
            {
                "rule": found.rule.name,
                "decision": plain(decision),
                "picked": number == 0,
                "terms": {name: column[number] for name, column in columns.items()},
                "params": [_param(param) for param in scheduled.func.params],
            },
            scheduled.func,
        )


def stratified(terms: Terms, most: int, rng: np.random.Generator) -> list[int]:
    """The first, the cheapest by the analytic price, and some of the others."""
    if terms.count <= most:
        return list(range(terms.count))
    order = [int(i) for i in np.argsort(terms.column("cycles"), kind="stable")]
    chosen = list(dict.fromkeys([0, *order[:CHEAPEST]]))[:most]
    others = [i for i in range(terms.count) if i not in chosen]
    drawn = rng.choice(others, size=most - len(chosen), replace=False)
    return [*chosen, *map(int, drawn)]


def _param(param: Any) -> list[Any]:
    return [[int(dim) for dim in param.ty.shape], str(param.ty.dtype)]
