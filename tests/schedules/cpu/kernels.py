"""Kernels as rules meet them: a Relax expression, legalized and fused, scheduled and run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import tvm
from tvm import relax, te, tirx

from tvmext.arch import CpuArch, from_device, to_target
from tvmext.build.kernels import build_kernels
from tvmext.schedules.cpu import RULES
from tvmext.schedules.kernel.analysis import substitute
from tvmext.schedules.rule import Kernel
from tvmext.schedules.select import Selection, select

ARCH = replace(from_device(), cores=1)
Build = Callable[..., relax.Expr]


def fused(build: Build, *inputs: tuple[Sequence[Any], str]) -> list[tirx.PrimFunc]:
    """The kernels of ``build(x0, x1, ...)``; an input is its shape (int or str dims) and dtype."""
    dims: dict[str, tirx.Var] = {}

    def dim(value: Any) -> Any:
        return dims.setdefault(value, tirx.Var(value, "int64")) if isinstance(value, str) else value

    builder = relax.BlockBuilder()
    params = [
        relax.Var(f"x{i}", relax.TensorType([dim(d) for d in shape], dtype))
        for i, (shape, dtype) in enumerate(inputs)
    ]
    with builder.function("main", params):
        with builder.dataflow():
            result = builder.emit_output(builder.normalize(build(*params)))
        builder.emit_func_output(result)
    passes = tvm.transform.Sequential(
        [
            relax.transform.LegalizeOps(),
            relax.transform.AnnotateTIROpPattern(),
            relax.transform.FuseOps(),
            relax.transform.FuseTIR(),
        ]
    )
    functions = passes(builder.get()).functions.values()
    return [function for function in functions if isinstance(function, tirx.PrimFunc)]


def kernel(build: Build, *inputs: tuple[Sequence[Any], str]) -> Kernel:
    """The one kernel that the expression becomes."""
    (function,) = fused(build, *inputs)
    return Kernel("kernel", function)


def composed(build: Callable[..., te.Tensor], *inputs: tuple[Sequence[Any], str]) -> Kernel:
    """One kernel of everything that ``build(x0, x1, ...)`` computes, even where FuseOps cuts."""
    dims: dict[str, tirx.Var] = {}
    shapes = [
        [dims.setdefault(d, tirx.Var(d, "int64")) if isinstance(d, str) else d for d in shape]
        for shape, _ in inputs
    ]
    params = [
        te.placeholder(shape, dtype, f"x{i}")
        for i, (shape, (_, dtype)) in enumerate(zip(shapes, inputs))
    ]
    return Kernel("kernel", te.create_prim_func([*params, build(*params)]))


def scheduled(kernel: Kernel, arch: CpuArch = ARCH) -> tuple[tirx.PrimFunc, Selection]:
    """The kernel as the rules schedule it, and which rule did."""
    result, selection = select(kernel, arch, RULES)
    return result.func, selection


def run(
    function: tirx.PrimFunc,
    arrays: Mapping[str, np.ndarray],
    arch: CpuArch = ARCH,
) -> list[np.ndarray]:
    """Outputs of a kernel; `arrays` are its inputs by name and give symbolic dims their sizes."""
    return call(built(function, arch), function, arrays, tvm.cpu())


def built(function: tirx.PrimFunc, arch: CpuArch = ARCH) -> Callable[..., None]:
    """A scheduled kernel, compiled as networks' kernels are."""
    return build_kernels({"main": function}, tvm.target.Target(to_target(arch)))["main"]


def call(
    compiled: Callable[..., None],
    function: tirx.PrimFunc,
    arrays: Mapping[str, np.ndarray],
    device: tvm.runtime.Device,
) -> list[np.ndarray]:
    """What `compiled`, which was made of `function`, writes to its outputs on `device`."""
    sizes: dict[Any, int] = {}
    for param in function.params:
        if param.name in arrays:
            pairs = zip(param.shape, arrays[param.name].shape)
            sizes |= {dim: size for dim, size in pairs if isinstance(dim, tirx.Var)}
    values, outputs = [], []
    for param in function.params:
        if param.name in arrays:
            values.append(tvm.runtime.tensor(arrays[param.name], device))
            continue
        shape = [evaluate(dim, sizes) for dim in param.shape]
        values.append(tvm.runtime.tensor(np.full(shape, 99, str(param.ty.dtype)), device))
        outputs.append(values[-1])
    compiled(*values)
    return [output.numpy() for output in outputs]


def evaluate(dim: Any, sizes: Mapping[Any, int]) -> int:
    """A dim's size."""
    values = {var: tirx.const(size, "int64") for var, size in sizes.items()}
    return int(tvm.sym.Analyzer().simplify(substitute(dim, values)))


def check(
    build: Build,
    arrays: Sequence[np.ndarray],
    expected: np.ndarray,
    *,
    dims: Sequence[Sequence[Any]] | None = None,
    how: Callable[..., Kernel] = kernel,
    rule: str | None = None,
    arch: CpuArch = ARCH,
    tolerance: float = 1e-5,
) -> None:
    """Schedule, run, compare. `dims` are the shapes to compile for; by default the arrays' own.

    `how` makes the kernel: `kernel` from a Relax expression, `composed` from tensors of te.
    """
    shapes = dims or [array.shape for array in arrays]
    inputs = [(shape, str(array.dtype)) for shape, array in zip(shapes, arrays)]
    function, selection = scheduled(how(build, *inputs), arch)
    if rule is not None:
        empty = dims is None and not expected.size
        assert selection.rule == ("nothing" if empty else rule), selection
    (result,) = run(function, {f"x{i}": array for i, array in enumerate(arrays)}, arch)
    np.testing.assert_allclose(result, expected, rtol=tolerance, atol=tolerance)


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    """Numbers to compute with."""
    return np.random.default_rng(seed).standard_normal(shape).astype("float32")
