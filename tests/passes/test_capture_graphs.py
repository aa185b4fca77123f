"""CUDA graphs: what is captured, and that a replay reads and writes where the capture did."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import tvm
import tvm_ffi
from onnx import TensorProto, helper, numpy_helper

import tvmext
from tests.schedules.cpu.kernels import normal
from tests.schedules.cuda import networks
from tests.schedules.cuda.device import IS_GPU
from tvmext.errors import OptionError
from tvmext.options import Options

GRAPH = Options(cuda_graph=True)


@pytest.fixture
def replays(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """The builtins of CUDA graphs without CUDA: a replay is the capture's call with its arguments.

    TVM's own are put back. How often each graph was replayed is counted by its number.
    """
    if IS_GPU:
        pytest.skip("a GPU has graphs of its own")
    load = tvm.get_global_func("vm.builtin.invoke_closure")
    allocated: dict[int, Any] = {}
    captured: dict[int, tuple[Any, Any]] = {}
    again: list[int] = []

    def cached(machine: Any, function: Any, number: int) -> Any:
        return allocated.setdefault(number, load(machine, function))

    def run(machine: Any, function: Any, arguments: Any, number: int, *_: Any) -> Any:
        if number in captured:
            again.append(number)
            kept, result = captured[number]
            load(machine, function, *kept)
            return result
        captured[number] = arguments, load(machine, function, *arguments)
        return captured[number][1]

    for name, fake in (("get_cached_alloc", cached), ("run_or_capture", run)):
        tvm_ffi.register_global_func(f"vm.builtin.cuda_graph.{name}", fake, override=True)
    yield again


def chain(path: Path, size: object, sums: bool = False) -> dict[str, np.ndarray]:
    """x -> product, relu, product, relu, product -> y; the weights."""
    weights = {f"w{i}": normal(32, 32, seed=i) / 6 for i in range(3)}
    nodes, last = [], "x"
    for i in range(3):
        nodes.append(helper.make_node("MatMul", [last, f"w{i}"], [f"p{i}"]))
        nodes.append(helper.make_node("Relu", [f"p{i}"], [f"r{i}"]))
        last = f"r{i}"
    nodes.append(helper.make_node("TopK", ["r2", "k"], ["y", "i"]) if sums else _named("r2", "y"))
    tensors = [numpy_helper.from_array(value, name) for name, value in weights.items()]
    tensors += [numpy_helper.from_array(np.array([2]), "k")] if sums else []
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [size, 32])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [size, 2 if sums else 32])
    graph = helper.make_graph(nodes, "chain", [x], [y], tensors)
    opset = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=8), path)
    return weights


def _named(source: str, name: str) -> onnx.NodeProto:
    return helper.make_node("Neg", [source], [name])


def expected(x: np.ndarray, weights: dict[str, np.ndarray]) -> np.ndarray:
    for value in weights.values():
        x = np.maximum(x @ value, 0)
    return -x


def test_a_replay_gives_what_the_new_input_asks_for(replays: list[int], tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    weights = chain(path, 40)
    runs = [{"x": normal(40, 32, seed=seed)} for seed in (7, 8, 9)]
    got = networks.run_each(path, runs, options=GRAPH)
    for inputs, outputs in zip(runs, got):
        np.testing.assert_allclose(outputs["y"], expected(inputs["x"], weights), 1e-4, 1e-4)
    # What was given back belongs to the caller: no later run has written to it.
    assert len(replays) == 2


def test_sizes_that_are_free_are_not_captured(replays: list[int], tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    weights = chain(path, "n")
    runs = [{"x": normal(n, 32, seed=n)} for n in (5, 40)]
    got = networks.run_each(path, runs, options=GRAPH)
    for inputs, outputs in zip(runs, got):
        np.testing.assert_allclose(outputs["y"], expected(inputs["x"], weights), 1e-4, 1e-4)
    assert not replays


def test_kernels_with_scratch_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    chain(path, 40, sums=True)
    with pytest.raises(OptionError, match="scratch memory"):
        networks.run_each(path, [], options=GRAPH)


def test_a_cpu_has_no_graphs(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    weights = chain(path, 40)
    x = normal(40, 32)
    got = tvmext.compile(path, options=GRAPH).run({"x": x})["y"]
    np.testing.assert_allclose(got, expected(x, weights), 1e-4, 1e-4)
