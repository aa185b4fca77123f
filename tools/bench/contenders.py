"""The sides of a comparison: each loads a model, keeps its inputs bound, and is then one call.

What a call includes: everything from bound inputs to outputs in memory, the layout changes at the
edges of the graph too. What it leaves out, for every side alike: copying inputs in.
"""

from __future__ import annotations

import importlib.util
import json
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import tvm
from tvm import relax

from tvmext.artifact import read_metadata
from tvmext.measure.profile import Kernel, Profile, profile
from tvmext.measure.rivals import session_of
from tvmext.measure.timing import Call

from .cases import Case
from .cases.case import Arrays, Graph

LAYOUT_OPERATORS = ("ReorderInput", "ReorderOutput", "Transpose")
"""What ONNX Runtime puts at the edges of a graph to compute in a layout of its own."""

LAYOUT_KERNELS = {"fused", "transpose", "reshape", "permute", "dims"}
"""Words in the names of our kernels that do nothing else."""

PRODUCTS = ("gemm", "conv", "depthwise", "phases")
"""Rules of kernels that are no mere change of layout."""

PROFILED_RUNS = 30


@dataclass(frozen=True)
class Contender:
    """`call` computes; `result` is what it computed once; `share` is explained at `interior`.

    `interior` returns the part of the time that is spent in other things than layout changes, as a
    profile of a few runs shows it.
    """

    call: Call
    result: np.ndarray
    interior: Callable[[], float]


class Tvmext:
    """A library that tvmext compiled, run by TVM's virtual machine as any TVM program would."""

    def __init__(self, library: Path, inputs: Arrays) -> None:
        self.decisions = read_metadata(library).decisions
        self.machine = relax.VirtualMachine(tvm.runtime.load_module(str(library)), tvm.cpu())
        self.main = self.machine["main"]
        self.tensors = [tvm.runtime.tensor(array) for array in inputs.values()]

    def run(self) -> Any:
        """One run; returns a tensor, or several."""
        return self.main(*self.tensors)

    def is_light(self, kernel: Kernel) -> bool:
        """Whether a kernel multiplies nothing, whatever its name: a product may store turned."""
        return self.decisions.get(kernel.name, {}).get("rule", "") not in PRODUCTS

    def profile(self, runs: int = PROFILED_RUNS) -> Profile:
        """Time by kernel."""
        return profile(self.machine, self.run, runs)


def tvmext(model: onnx.ModelProto, inputs: Arrays) -> Contender:
    """Compiles for this machine, in this process: a worker may crash (ops.py)."""
    from tvmext.api import compile_here
    from tvmext.build import CompileRequest

    with tempfile.TemporaryDirectory(prefix="tvmext-bench-") as folder:
        source, library = Path(folder) / "model.onnx", Path(folder) / "model.so"
        onnx.save(model, source)
        compile_here(CompileRequest(str(source), str(library)), lambda *_: None)
        ours = Tvmext(library, inputs)

    def interior() -> float:
        kernels = ours.profile().kernels
        total = sum(kernel.seconds for kernel in kernels)
        inside = (k for k in kernels if not (changes_layout(k) and ours.is_light(k)))
        return sum(kernel.seconds for kernel in inside) / total

    return Contender(ours.run, first_result(ours.run()), interior)


def first_result(result: Any) -> np.ndarray:
    """The first output of a run, which may be a tensor or several."""
    first = result if hasattr(result, "numpy") else result[0]
    array: np.ndarray = first.numpy()
    return array


def changes_layout(kernel: Kernel) -> bool:
    """Whether one of our kernels only changes the layout, by its name."""
    return kernel.operators <= LAYOUT_KERNELS


def onnx_runtime(model: onnx.ModelProto, inputs: Arrays, threads: int) -> Contender:
    """ONNX Runtime with all its optimizations; inputs and outputs lie in memory it was given.

    That is its cheapest call: 1 us, where `session.run` takes 5 us.
    """
    data = model.SerializeToString()
    session = session_of(data, threads)
    results = session.run(None, dict(inputs))
    binding = session.io_binding()
    for name, array in inputs.items():
        binding.bind_ortvalue_input(name, onnxruntime.OrtValue.ortvalue_from_numpy(array))
    for output, array in zip(session.get_outputs(), results):
        binding.bind_ortvalue_output(output.name, onnxruntime.OrtValue.ortvalue_from_numpy(array))
    return Contender(
        lambda: session.run_with_iobinding(binding),
        np.array(results[0]),
        lambda: _interior_of_onnx_runtime(data, inputs, threads),
    )


def _interior_of_onnx_runtime(model: bytes, inputs: Arrays, threads: int) -> float:
    with tempfile.TemporaryDirectory(prefix="tvmext-bench-") as folder:
        session = session_of(model, threads, str(Path(folder) / "profile"))
        for _ in range(PROFILED_RUNS):
            session.run(None, dict(inputs))
        events = json.loads(Path(session.end_profiling()).read_text())
    least: dict[tuple[str, str], float] = {}
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            key = event["args"]["op_name"], event["name"]
            least[key] = min(event["dur"], least.get(key, event["dur"]))
    inside = sum(t for (op, _), t in least.items() if op not in LAYOUT_OPERATORS)
    return inside / max(1, sum(least.values()))


def fastest_form(case: Case, graph: Graph, threads: int, judge: Callable) -> tuple[Contender, int]:
    """ONNX Runtime on the graph and on its rivals: the fastest by `judge`, and which one it is."""
    forms = [onnx_runtime(graph.model(), graph.inputs, threads)]
    for rival in case.rivals:
        other = rival()
        forms.append(onnx_runtime(other.model(), other.inputs, threads))
    if len(forms) == 1:
        return forms[0], 0
    seconds = judge({str(i): form.call for i, form in enumerate(forms)})
    best = min(range(len(forms)), key=lambda i: seconds[str(i)])
    return forms[best], best


def torch_available() -> bool:
    """Whether torch is installed; importing it takes a second or two."""
    return importlib.util.find_spec("torch") is not None


def torch(case: Case, graph: Graph, threads: int) -> Call:
    """torch on the CPU, in inference mode: the call that the case describes."""
    import torch as module

    assert case.torch
    module.set_num_threads(threads)
    arrays: Mapping[str, np.ndarray] = {**graph.inputs, **graph.weights}
    tensors = {name: module.from_numpy(np.array(array)) for name, array in arrays.items()}
    with module.inference_mode():
        run = case.torch(module, tensors)

    def call() -> object:
        with module.inference_mode():
            return run()

    call()
    return call
