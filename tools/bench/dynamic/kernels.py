"""Kernels outside of any network: made, scheduled, compiled many to a library, and called."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import tvm
from tvm import relax, sym, tirx

from tvmext.arch import CpuArch, resolve, to_target
from tvmext.build.kernels import build_kernels
from tvmext.measure.timing import Call
from tvmext.passes.share_kernels import ShareKernels
from tvmext.schedules.cpu import RULES, gemm
from tvmext.schedules.cpu.choices import choices
from tvmext.schedules.cpu.choices_gemm import each_alone
from tvmext.schedules.kernel.analysis import substitute
from tvmext.schedules.layout import relayout
from tvmext.schedules.rule import Declined, Kernel, Layout, Rule

from ..cases.case import Arrays
from .cases import Case, Conv, Gemm

Dims = Mapping[str, int]
PER_LIBRARY = 24


@dataclass(frozen=True)
class Ready:
    """A scheduled kernel. `sizes` are what it is passed after its inputs, in terms of its dims."""

    name: str
    func: tirx.PrimFunc
    layouts: Mapping[int, Layout]
    sizes: tuple[Any, ...]
    dims: Mapping[str, tirx.Var]
    decision: Any

    def call(self, library: Any, inputs: Sequence[np.ndarray], sizes: Dims, out: Any) -> Call:
        """The call on these inputs, weights laid out as the kernel wants them."""
        values = {var: tirx.const(sizes[name], "int64") for name, var in self.dims.items()}
        simplify = sym.Analyzer().simplify
        scalars = [int(simplify(substitute(size, values))) for size in self.sizes]
        laid = [
            relayout(array, self.layouts[i]) if i in self.layouts else array
            for i, array in enumerate(inputs)
        ]
        function = library[self.name]
        arguments = [*map(tvm.runtime.tensor, laid), *scalars, out]
        return lambda: function(*arguments)


def arch() -> CpuArch:
    """This machine."""
    found = resolve("llvm")
    assert isinstance(found, CpuArch)
    return found


def dynamic(case: Case) -> Ready:
    """The kernel for any size; cases that differ in free sizes alone have the same one."""
    return _dynamic(_layer(case))


@cache
def _dynamic(case: Case) -> Ready:
    plain = _plain(*_free(case))
    return plain.scheduled(plain.picked)


def static(case: Case) -> Ready:
    """The kernel for the sizes of the case."""
    plain = _plain(_build(case), _shapes(case, {}), _weights(case))
    return plain.scheduled(plain.picked)


def candidates(case: Case) -> tuple[Ready, ...]:
    """The kernel for any size as each of its candidates alone makes it."""
    return _candidates(_layer(case))


@cache
def _candidates(case: Case) -> tuple[Ready, ...]:
    plain = _plain(*_free(case))
    return tuple(plain.scheduled(decision) for decision in plain.candidates())


def _layer(case: Case) -> Case:
    """The first of the cases that differ from this one in free sizes alone."""
    if isinstance(case, Conv):
        return replace(case, batch=1, side=case.window)
    return replace(case, m=1) if case.weight else replace(case, m=1, n=1, k=1)


def inputs(case: Case) -> Arrays:
    """Arrays by name: x, w, and b for a convolution, with channels last."""
    draw = np.random.default_rng(0).standard_normal
    return {
        name: draw(shape, dtype=np.float32) * np.float32(0.1)
        for name, shape in zip("xwb", _shapes(case, {}))
    }


def out_shape(case: Case) -> tuple[int, ...]:
    """The shape of the result."""
    if isinstance(case, Gemm):
        return case.m, case.n
    return case.batch, case.out_side, case.out_side, case.outputs


def sizes(case: Case) -> dict[str, int]:
    """The free sizes."""
    if isinstance(case, Conv):
        return {"batch": case.batch, "height": case.side, "width": case.side}
    return {"m": case.m} | ({} if case.weight else {"n": case.n, "k": case.k})


def _free(case: Case) -> tuple[Callable[..., Any], list[tuple[Any, ...]], frozenset[int]]:
    free = {name: tirx.Var(name, "int64") for name in sizes(case)}
    return _build(case), _shapes(case, free), _weights(case)


def _weights(case: Case) -> frozenset[int]:
    return frozenset([1] if isinstance(case, Conv) or case.weight else [])


def _shapes(case: Case, free: Mapping[str, tirx.Var]) -> list[tuple[Any, ...]]:
    if isinstance(case, Gemm):
        m, n, k = (free.get(name, getattr(case, name)) for name in "mnk")
        return [(m, k), (k, n)]
    batch = free.get("batch", case.batch)
    height, width = (free.get(name, case.side) for name in ("height", "width"))
    window = (case.outputs, case.window, case.window, case.inputs)
    return [(batch, height, width, case.inputs), window, (case.outputs,)]


def _build(case: Case) -> Callable[..., Any]:
    if isinstance(case, Gemm):
        return relax.op.matmul
    layouts = {"data_layout": "NHWC", "kernel_layout": "OHWI"}
    settings = {"strides": case.stride, "padding": case.padding, **layouts}
    return lambda x, w, b: relax.op.nn.relu(relax.op.nn.conv2d(x, w, **settings) + b)


@dataclass(frozen=True)
class _Plain:
    """A kernel that is to be scheduled by `rule`. For `sizes` and `dims` see `Ready`."""

    kernel: Kernel
    sizes: tuple[Any, ...]
    dims: Mapping[str, tirx.Var]
    rule: Rule
    workload: Any

    @property
    def picked(self) -> Any:
        return self.rule.choose(self.workload, arch())

    def candidates(self) -> Sequence[Any]:
        """Decisions for all sizes; what chooses when it runs has each of its variants instead."""
        picked = self.picked
        if isinstance(picked, gemm.Decision) and picked.others:
            return each_alone(self.workload, picked, arch())
        family = choices().get(self.rule.name)
        return family.candidates(self.workload, arch()) if family else [picked]

    def scheduled(self, decision: Any) -> Ready:
        result = self.rule.apply(self.kernel, self.workload, decision, arch())
        digest = hashlib.sha256(result.func.script().encode()).hexdigest()[:16]
        name = f"kernel_{digest}"
        func = result.func.with_attr("global_symbol", name)
        return Ready(name, func, result.layouts, self.sizes, self.dims, decision)


def _plain(
    build: Callable[..., Any], shapes: Sequence[tuple[Any, ...]], weights: frozenset[int]
) -> _Plain:
    """The one kernel of ``build(..)``, as the pipeline of a network would make it."""
    builder = relax.BlockBuilder()
    params = [
        relax.Var(f"x{i}", relax.TensorType(shape, "float32")) for i, shape in enumerate(shapes)
    ]
    with builder.function("main", params):
        with builder.dataflow():
            result = builder.emit_output(builder.normalize(build(*params)))
        builder.emit_func_output(result)
    passes = [
        relax.transform.LegalizeOps(),
        relax.transform.AnnotateTIROpPattern(),
        relax.transform.FuseOps(),
        relax.transform.FuseTIR(),
        ShareKernels(),
    ]
    module = tvm.transform.Sequential(passes)(builder.get())
    (call,) = (b.value for block in module["main"].body.blocks for b in block.bindings)
    kernel = Kernel("kernel", module[call.args[0]], weights)
    dims = {d.name: d for shape in shapes for d in shape if isinstance(d, tirx.Var)}
    scalars = tuple(call.args[1].fields[len(shapes) :])
    for rule in RULES:
        workload = rule.match(kernel)
        if not isinstance(workload, Declined):
            return _Plain(kernel, scalars, dims, rule, workload)
    raise AssertionError("the last rule takes everything")


def libraries(kernels: Iterable[Ready], folder: Path) -> dict[str, Any]:
    """Every kernel by name; those that `folder` has already are loaded, the rest is compiled."""
    wanted = {kernel.name: kernel.func for kernel in kernels}
    found: dict[str, Any] = {}
    folder.mkdir(parents=True, exist_ok=True)
    for path in folder.glob("*.so"):
        names = path.with_suffix(".txt").read_text().split()
        if any(name in wanted for name in names):
            library = tvm.runtime.load_module(str(path))
            found |= {name: library[name] for name in names}
    missing = [name for name in wanted if name not in found]
    for first in range(0, len(missing), PER_LIBRARY):
        names = missing[first : first + PER_LIBRARY]
        path = folder / f"{hashlib.sha256(' '.join(names).encode()).hexdigest()[:16]}.so"
        target = tvm.target.Target(to_target(arch()))
        module = build_kernels({name: wanted[name] for name in names}, target)
        module.export_library(str(path))
        path.with_suffix(".txt").write_text("\n".join(names))
        library = tvm.runtime.load_module(str(path))
        found |= {name: library[name] for name in names}
    return found
