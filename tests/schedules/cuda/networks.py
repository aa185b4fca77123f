"""Whole networks compiled for a GPU and run in the emulator, or on one (device.py)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import tvm
from tvm import relax

from tvmext.arch import to_target
from tvmext.arch.cuda import CudaArch
from tvmext.build.kernels import code_generation
from tvmext.frontends import load
from tvmext.frontends.model import Model
from tvmext.options import Options
from tvmext.passes import lower
from tvmext.schedules.rules import rules_for
from tvmext.schedules.schedule import ScheduleKernels

from .device import ARCH, on_device


def run(
    path: Path,
    inputs: Mapping[str, np.ndarray],
    dims: Mapping[str, int] | None = None,
    options: Options | None = None,
    arch: CudaArch = ARCH,
) -> dict[str, np.ndarray]:
    """The outputs of an ONNX file, compiled as `tvmext.compile` does up to code generation."""
    return run_each(path, [inputs], dims, options, arch)[0]


def run_each(
    path: Path,
    runs: Sequence[Mapping[str, np.ndarray]],
    dims: Mapping[str, int] | None = None,
    options: Options | None = None,
    arch: CudaArch = ARCH,
) -> list[dict[str, np.ndarray]]:
    """As `run`, for several inputs one after the other; results are fetched when all have run."""
    target = tvm.target.Target(to_target(arch))
    model, mod, _ = lowered(path, dims, options, arch)
    with on_device(), code_generation(target):
        executable = relax.build(mod, target, relax_pipeline=None)
        main = relax.VirtualMachine(executable, tvm.cuda())["main"]
        results = [main(*(_tensor(inputs[spec.name]) for spec in model.inputs)) for inputs in runs]
    names = [spec.name for spec in model.outputs]
    tuples = [(result,) if len(names) == 1 else result for result in results]
    return [{n: t.numpy() for n, t in zip(names, tensors)} for tensors in tuples]


def lowered(
    path: Path,
    dims: Mapping[str, int] | None = None,
    options: Options | None = None,
    arch: CudaArch = ARCH,
) -> tuple[Model, tvm.IRModule, list[str]]:
    """A network before code generation, and the rules of its kernels."""
    options = options or Options()
    model = load(str(path), dims=dict(dims or {}))
    schedule = ScheduleKernels(arch, rules_for(arch, options))
    target = tvm.target.Target(to_target(arch))
    mod = lower(model, schedule, schedule.reading, target, options, lambda *_: None)
    return model, mod, [one.rule for one in schedule.selections]


def _tensor(array: np.ndarray) -> tvm.runtime.Tensor:
    return tvm.runtime.tensor(array, tvm.cuda())
