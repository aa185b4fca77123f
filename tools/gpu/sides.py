"""The sides of a comparison on a GPU: each prepares a problem, and is then one call.

A call launches work on the default stream and leaves its result on the device. A side whose package
is not installed does not take part; one that nobody has written for a problem says so.
"""

from __future__ import annotations

import importlib.util
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from .device import Call, Device
from .inputs import Problem


@dataclass(frozen=True)
class Contender:
    """`call` computes; `result` fetches what it computed, the first output as an array."""

    call: Call
    result: Callable[[], np.ndarray]


Build = Callable[[Problem, Device], Contender]


def tvmext(problem: Problem, device: Device, virtual_tensors: str = "latency") -> Contender:
    """A library that tvmext compiled for the device, on TVM's virtual machine."""
    import tvm

    import tvmext
    from tvmext.options import Options

    options = Options(virtual_tensors=virtual_tensors, tf32=problem.dtype == "tfloat32")
    with tempfile.TemporaryDirectory(prefix="tvmext-gpu-") as folder:
        library = Path(folder) / "model.so"
        tvmext.compile(problem.model, device.target, options=options).save(library)
        return _machine(tvm.runtime.load_module(str(library)), problem, device)


def stock_tvm(problem: Problem, device: Device) -> Contender:
    """TVM's own pipeline and its dlight rules."""
    import tvm

    model = problem.model
    if not isinstance(model, tvm.IRModule):
        import onnx
        from tvm.relax.frontend.onnx import from_onnx

        model = from_onnx(onnx.load(model), keep_params_in_input=False)
    target = tvm.target.Target(_stock_target(device.target))
    with target:
        return _machine(tvm.compile(model, target), problem, device)


def _stock_target(target: str) -> Any:
    """dlight knows no suffix: for "sm_90a" it would leave the tensor cores out."""
    kind, _, arch = target.partition(" -arch=")
    return {"kind": kind, "arch": arch.rstrip("a")} if arch else kind


def _machine(library: Any, problem: Problem, device: Device) -> Contender:
    from tvm import relax

    tensors = [device.array(array) for array in problem.inputs.values()]
    machine = relax.VirtualMachine(library, tensors[0].device)
    main = machine["main"]

    def result() -> np.ndarray:
        out = main(*tensors)
        first = out if hasattr(out, "numpy") else out[0]
        array: np.ndarray = first.numpy()
        return array

    return Contender(lambda: main(*tensors), result)


def torch(problem: Problem, device: Device, mode: str = "") -> Contender:
    """torch as it is, or compiled with `mode` (torch.compile)."""
    import torch as package

    if problem.torch is None:
        raise NotImplementedError("nobody has written this with torch")
    package.backends.cuda.matmul.allow_tf32 = problem.dtype == "tfloat32"
    package.backends.cudnn.benchmark = True
    where = "cuda" if device.target.startswith("cuda") else "cpu"
    tensors = [_to_torch(package, array).to(where) for array in problem.inputs.values()]
    run = problem.torch(package, tensors)
    if mode:
        run = package.compile(run, mode=mode, dynamic=False)

    def call() -> Any:
        with package.inference_mode():
            return run()

    def result() -> np.ndarray:
        out = call()
        first = out[0] if isinstance(out, tuple | list) else out
        array: np.ndarray = first.float().cpu().numpy()
        return array

    return Contender(call, result)


def _to_torch(package: Any, array: np.ndarray) -> Any:
    if str(array.dtype) == "bfloat16":
        return package.from_numpy(array.view(np.uint16).copy()).view(package.bfloat16)
    return package.from_numpy(array)


def triton(problem: Problem, device: Device) -> Contender:
    """Triton's tutorial product, with its autotuner; products only."""
    if problem.kind != "gemm":
        raise NotImplementedError("it is written for products only")
    import torch as package

    from .triton_gemm import product

    where = [_to_torch(package, array).to("cuda") for array in problem.inputs.values()]
    call = partial(product, *where, problem.dtype == "tfloat32")
    return Contender(call, lambda: call().float().cpu().numpy())


SIDES: Mapping[str, tuple[str, Build]] = {
    "tvmext": ("tvm", tvmext),
    "tvmext, no virtual tensors": ("tvm", partial(tvmext, virtual_tensors="off")),
    "torch": ("torch", torch),
    "torch.compile": ("torch", partial(torch, mode="default")),
    "max-autotune": ("torch", partial(torch, mode="max-autotune-no-cudagraphs")),
    "triton": ("triton", triton),
    "tvm": ("tvm", stock_tvm),
}
"""{name: (package that it needs, how it prepares)}."""


def installed(names: Mapping[str, tuple[str, Build]]) -> dict[str, Build]:
    """Those sides whose package is here."""
    return {name: build for name, (package, build) in names.items() if _is_here(package)}


def _is_here(package: str) -> bool:
    return importlib.util.find_spec(package) is not None
