"""CUDA kernels as rules make them, run in the emulator or on a GPU (device.py)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import tvm
from tvm import tirx

from tests.schedules.cpu.kernels import Build, call, kernel
from tvmext.arch import to_target
from tvmext.arch.cuda import CudaArch
from tvmext.build.kernels import code_generation
from tvmext.schedules.cuda import RULES
from tvmext.schedules.rule import Kernel
from tvmext.schedules.select import Selection, select

from .device import ARCH, on_device
from .emulator import Mutation

ORDERS = (0, 1, 7)
"""Threads in ascending, descending and random order."""


def scheduled(kernel: Kernel, arch: CudaArch = ARCH) -> tuple[tirx.PrimFunc, Selection]:
    """The kernel as the rules schedule it, and which rule did."""
    result, selection = select(kernel, arch, RULES)
    return result.func, selection


def run(
    function: tirx.PrimFunc,
    arrays: Mapping[str, np.ndarray],
    order: int = 0,
    mutation: Mutation | None = None,
) -> list[np.ndarray]:
    """Outputs of a kernel; `arrays` are its inputs by name and give symbolic dims their sizes."""
    target = tvm.target.Target(to_target(ARCH))
    module = tvm.IRModule({"main": function.with_attr("global_symbol", "main")})
    with on_device(order, mutation), target, code_generation(target):
        return call(tvm.tirx.build(module, target)["main"], function, arrays, tvm.cuda())


def check(
    build: Build,
    arrays: Sequence[np.ndarray],
    expected: np.ndarray,
    *,
    dims: Sequence[Sequence[Any]] | None = None,
    how: Callable[..., Kernel] = kernel,
    rule: str | None = None,
    orders: Sequence[int] = ORDERS,
    tolerance: float = 1e-5,
) -> Any:
    """Schedule, run in several orders of threads, compare; returns the decision.

    `dims` are the shapes to compile for; by default the arrays' own. `how` makes the kernel.
    """
    shapes = dims or [array.shape for array in arrays]
    made = how(build, *[(shape, str(array.dtype)) for shape, array in zip(shapes, arrays)])
    function, selection = scheduled(made)
    assert rule is None or selection.rule == rule, selection
    inputs = {f"x{i}": array for i, array in enumerate(arrays)}
    for order in orders:
        (result,) = run(function, inputs, order)
        np.testing.assert_allclose(result, expected, rtol=tolerance, atol=tolerance)
    return selection.decision
