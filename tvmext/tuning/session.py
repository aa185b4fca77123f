"""Kernels of a network, the dearest first: their candidates are built, timed in turns, recorded."""

from __future__ import annotations

import datetime
import json
import os
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tvm
from tvm import tirx

from tvmext.arch import CpuArch, resolve, to_target
from tvmext.arch.cpu import from_device
from tvmext.build import CompileRequest
from tvmext.errors import OptionError
from tvmext.measure.turns import Device, Local, summary, timed
from tvmext.options import Options
from tvmext.passes import run
from tvmext.passes.catch import Catch
from tvmext.passes.pipeline import pipeline
from tvmext.schedules.choices import Choices
from tvmext.schedules.cost.weights import cost_model
from tvmext.schedules.kernel.analysis import constant
from tvmext.schedules.records import FORMAT, Records, machine_of, read, versions, workload_of
from tvmext.schedules.rule import Declined, Kernel, Rule
from tvmext.schedules.rules import choices_for, rules_for
from tvmext.schedules.schedule import ScheduleKernels, calls_of_kernels, constant_args
from tvmext.schedules.select import plain

from .library import write_library
from .result import Tuned, TunedKernel

Report = Callable[..., None]


@dataclass(frozen=True)
class Task:
    """A kernel with something to choose: its candidates, the rule's own first, then by price."""

    kernel: Kernel
    rule: Rule
    workload: Any
    calls: int
    price: float
    decisions: tuple[Any, ...]


def tuned(request: CompileRequest, report: Report) -> Tuned:
    """Tune the model of a request, as `tvmext.tuning.tune` says."""
    asked = request.asked
    arch = _here(request.target)
    path = Path(asked["records"])
    there = read(path) if path.exists() else Records({})
    known = Records({}) if asked["again"] else there
    mod = _kernels(request, arch, report)
    tasks, left = _tasks(mod, arch, request.options, asked["top"])
    tasks.sort(key=lambda task: -task.price * task.calls)
    device: Device | None = None
    found = []
    end = time.monotonic() + asked["seconds"]
    with Journal(path) as journal:
        for number, task in enumerate(tasks, 1):
            rows = _known(task, known, arch)
            if len(rows) < len(task.decisions):
                if time.monotonic() > end:
                    left.append((task.kernel.name, task.rule.name, "no time was left"))
                    continue
                report("measure", f"{task.kernel.name} ({number} of {len(tasks)})")
                device = device or Local(arch.cores)
                rows = []
                for row in _measured(task, arch, request, device):
                    journal.add(row)
                    rows.append(row)
            found.append(_result(task, rows))
    return Tuned(tuple(found), tuple(left))


def _here(target: Any) -> CpuArch:
    """The machine of a target. Raises OptionError if this one cannot run its code."""
    arch = resolve(target)
    if not isinstance(arch, CpuArch):
        raise OptionError("tune measures on the CPU of this machine", hint="--target llvm")
    here = from_device()
    if missing := sorted(arch.features - here.features):
        raise OptionError(
            f"this machine lacks {', '.join(missing)}, which the target has", hint="--target llvm"
        )
    return arch


def _kernels(request: CompileRequest, arch: CpuArch, report: Report) -> tvm.IRModule:
    """The module of a model as its kernels come to be scheduled."""
    model = request.load(report)
    catch = Catch()
    options = request.options
    reading = ScheduleKernels(arch, rules_for(arch, options)).reading
    target = tvm.target.Target(to_target(arch))
    passes = pipeline(model, catch, reading, str(target.kind.name), options)
    run(passes[: passes.index(catch) + 1], model.mod, target, options, report)
    return catch.mod


def _tasks(
    mod: tvm.IRModule, arch: CpuArch, options: Options, top: int
) -> tuple[list[Task], list[tuple[str, str, str]]]:
    """The kernels that leave something to choose, and (kernel, rule, reason) of the others."""
    rules, choices = rules_for(arch, options), choices_for(arch, options)
    constants, calls = constant_args(mod), Counter(calls_of_kernels(mod))
    tasks, left = [], []
    for var, func in mod.functions_items():
        if not isinstance(func, tirx.PrimFunc):
            continue
        kernel = Kernel(var.name_hint, func, constants.get(var, frozenset()))
        rule, workload = next(_matches(kernel, rules))
        reason = ""
        if rule.name not in choices:
            reason = "its rule has one decision"
        elif not _is_static(func):
            reason = "its sizes are known at run time only; --dim binds them"
        else:
            task = _task(kernel, rule, workload, choices[rule.name], arch, options, top)
            if task is None:
                reason = "its rule lists one decision"
            else:
                tasks.append(Task(kernel, rule, workload, calls[var], *task))
        if reason:
            left.append((kernel.name, rule.name, reason))
    return tasks, left


def _matches(kernel: Kernel, rules: tuple[Rule, ...]) -> Iterator[tuple[Rule, Any]]:
    for rule in rules:
        workload = rule.match(kernel)
        if not isinstance(workload, Declined):
            yield rule, workload


def _is_static(func: tirx.PrimFunc) -> bool:
    dims = (dim for param in func.params for dim in getattr(param.ty, "shape", [None]))
    return all(constant(dim) is not None for dim in dims)


def _task(
    kernel: Kernel,
    rule: Rule,
    workload: Any,
    choices: Choices,
    arch: CpuArch,
    options: Options,
    top: int,
) -> tuple[float, tuple[Any, ...]] | None:
    """The price of the rule's own decision, and the candidates; None if there is one only."""
    own = rule.choose(workload, arch)
    listed = list(dict.fromkeys([own, *choices.candidates(workload, arch)]))
    if len(listed) < 2:
        return None
    seconds = cost_model(options.cost_model).seconds(choices.terms(workload, listed, arch))
    others = sorted(range(1, len(listed)), key=lambda k: float(seconds[k]))[: top - 1]
    return float(seconds[0]), (own, *(listed[k] for k in others))


def _known(task: Task, records: Records, arch: CpuArch) -> list[Mapping[str, Any]]:
    """The records of the task's candidates, if all are there."""
    rows = records.fitting(workload_of(task.kernel, task.rule), arch)
    if isinstance(rows, str):
        return []
    by_decision = {json.dumps(row["decision"]): row for row in rows}
    wanted = [json.dumps(plain(decision)) for decision in task.decisions]
    return [by_decision[text] for text in wanted if text in by_decision]


def _measured(
    task: Task, arch: CpuArch, request: CompileRequest, device: Device
) -> Iterator[dict[str, Any]]:
    """A record for each candidate of a task."""
    functions = {
        f"candidate_{number}": task.rule.apply(task.kernel, task.workload, decision, arch).func
        for number, decision in enumerate(task.decisions)
    }
    with tempfile.TemporaryDirectory(prefix="tvmext-tune-") as folder:
        path = Path(folder) / "candidates.so"
        write_library(functions, arch, request.options, path)
        library = device.load(path)
        calls = {
            symbol: [device.array(*_shape_and_dtype(param)) for param in func.params]
            for symbol, func in functions.items()
        }
        samples = timed(library, calls, device)
    common = {
        "record": FORMAT,
        "workload": workload_of(task.kernel, task.rule),
        "machine": machine_of(arch),
        "versions": versions(),
        "rule": task.rule.name,
        "kernel": task.kernel.name,
        "model": request.name,
        "device": device.name,
        "threads": arch.cores,
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
    }
    for number, (decision, symbol) in enumerate(zip(task.decisions, functions)):
        yield {
            **common,
            "decision": plain(decision),
            "own": number == 0,
            **summary(samples[symbol]),
        }


def _shape_and_dtype(param: Any) -> tuple[list[int], str]:
    return [int(dim) for dim in param.ty.shape], str(param.ty.dtype)


def _result(task: Task, rows: list[Mapping[str, Any]]) -> TunedKernel:
    own = rows[0]
    best = min(rows, key=lambda row: float(row["seconds"]))
    return TunedKernel(
        task.kernel.name,
        task.rule.name,
        task.calls,
        len(rows),
        float(own["seconds"]),
        float(best["seconds"]),
        bool(own.get("noisy") or best.get("noisy")),
        best["decision"],
    )


class Journal:
    """A file that grows by whole lines, each on the disk before the next is measured.

    Several processes may append at once. A line that a kill cut off is ended before the first.
    """

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
        size = os.fstat(self._file).st_size
        if size and os.pread(self._file, 1, size - 1) != b"\n":
            os.write(self._file, b"\n")

    def add(self, row: Mapping[str, Any]) -> None:
        os.write(self._file, (json.dumps(row) + "\n").encode())
        os.fdatasync(self._file)

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._file)
