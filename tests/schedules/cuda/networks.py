"""Whole networks compiled for a GPU and run in the emulator, or on one (device.py)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import tvm
from tvm import relax

from tvmext.arch import to_target
from tvmext.build.kernels import code_generation
from tvmext.frontends import load
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
) -> dict[str, np.ndarray]:
    """The outputs of an ONNX file, compiled as `tvmext.compile` does up to code generation."""
    target = tvm.target.Target(to_target(ARCH))
    options = options or Options()
    model = load(str(path), dims=dict(dims or {}))
    schedule = ScheduleKernels(ARCH, rules_for(ARCH, options))
    with on_device():
        mod = lower(model, schedule, schedule.reading, target, options, lambda *_: None)
        with code_generation(target):
            executable = relax.build(mod, target, relax_pipeline=None)
        machine = relax.VirtualMachine(executable, tvm.cuda())
        given = [tvm.runtime.tensor(inputs[spec.name], tvm.cuda()) for spec in model.inputs]
        result = machine["main"](*given)
    results = (result,) if len(model.outputs) == 1 else result
    return {spec.name: tensor.numpy() for spec, tensor in zip(model.outputs, results)}
