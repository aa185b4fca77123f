"""CUDA kernels as rules make them, run in the emulator or on a GPU (device.py)."""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pytest
import tvm
from tvm import tirx

from tests.schedules.cpu.kernels import Build, call, kernel
from tvmext.arch import to_target
from tvmext.arch.cuda import CudaArch
from tvmext.arch.cuda_driver import toolkit
from tvmext.build.cuda import Toolchain
from tvmext.build.kernels import code_generation
from tvmext.schedules.cuda import rules
from tvmext.schedules.rule import Kernel
from tvmext.schedules.select import Selection, select

from .device import ARCH, on_device
from .emulator import Mutation, emulated

ORDERS = (0, 1, 7)
"""Threads in ascending, descending and random order."""
RACES = (-1, -2)
"""One warp after another, each as far as it comes: some are far ahead of others."""


def scheduled(
    kernel: Kernel, arch: CudaArch = ARCH, *, tf32: bool = False
) -> tuple[tirx.PrimFunc, Selection]:
    """The kernel as the rules schedule it, and which rule did."""
    result, selection = select(kernel, arch, rules(arch, tf32=tf32))
    return result.func, selection


def run(
    function: tirx.PrimFunc,
    arrays: Mapping[str, np.ndarray],
    order: int = 0,
    mutation: Mutation | None = None,
    arch: CudaArch = ARCH,
) -> list[np.ndarray]:
    """Outputs of a kernel; `arrays` are its inputs by name and give symbolic dims their sizes."""
    return next(runs(function, [(arrays, order)], mutation, arch))


def runs(
    function: tirx.PrimFunc,
    inputs: Iterable[tuple[Mapping[str, np.ndarray], int]],
    mutation: Mutation | None = None,
    arch: CudaArch = ARCH,
) -> Iterator[list[np.ndarray]]:
    """As `run` for several inputs and orders of threads; the kernel is built once."""
    target = tvm.target.Target(to_target(arch))
    module = tvm.IRModule({"main": function.with_attr("global_symbol", "main")})
    with on_device(0, mutation), target, code_generation(target):
        built = tvm.tirx.build(module, target)["main"]
    for arrays, order in inputs:
        with on_device(order):
            yield call(built, function, arrays, tvm.cuda())


def machine_code(function: tirx.PrimFunc, arch: CudaArch = ARCH) -> set[str]:
    """The instructions of a kernel as NVRTC compiles it; no register may be spilled."""
    wheels = toolkit()
    tool = None if wheels is None else wheels / "bin" / "nvdisasm"
    if tool is None or not tool.exists():
        pytest.skip("nvdisasm is not installed (pip install nvidia-cuda-nvdisasm)")
    chain = Toolchain(arch)
    words: set[str] = set()
    for cubin in chain.compile(source(function, arch)).values():
        with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
            file.write(cubin)
            file.flush()
            done = subprocess.run(
                [str(tool), "-c", file.name], capture_output=True, text=True, check=True
            )
        words |= set(_INSTRUCTION.findall(done.stdout))
    spills = {name: used.spill_stores for name, used in chain.usage.items() if used.spill_stores}
    assert not spills, f"spilled bytes: {spills}"
    return words


_INSTRUCTION = re.compile(r"^\s+/\*[0-9a-f]{4}\*/\s+(?:@!?U?P\d+\s+)?([A-Z0-9_.x]+)", re.M)


def source(function: tirx.PrimFunc, arch: CudaArch = ARCH) -> str:
    """The CUDA C++ of a kernel."""
    target = tvm.target.Target(to_target(arch))
    found: list[str] = []

    def keep(code: str) -> str:
        found.append(code)
        return "// nothing to run"

    with emulated(0, keep), target, code_generation(target):
        tvm.tirx.build(tvm.IRModule({"main": function.with_attr("global_symbol", "main")}), target)
    return found[0]


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
    arch: CudaArch = ARCH,
) -> Any:
    """Schedule, run in several orders of threads, compare; returns the decision.

    `dims` are the shapes to compile for; by default the arrays' own. `how` makes the kernel.
    """
    shapes = dims or [array.shape for array in arrays]
    made = how(build, *[(shape, str(array.dtype)) for shape, array in zip(shapes, arrays)])
    function, selection = scheduled(made, arch)
    assert rule is None or selection.rule == rule, selection
    inputs = {f"x{i}": array for i, array in enumerate(arrays)}
    for (result,) in runs(function, [(inputs, order) for order in orders], arch=arch):
        np.testing.assert_allclose(result, expected, rtol=tolerance, atol=tolerance)
    return selection.decision
