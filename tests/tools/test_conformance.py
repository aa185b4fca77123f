"""The runner of ONNX's tests: what becomes of a pass, a refusal and a crash; the exclude list."""

from __future__ import annotations

import os
from types import SimpleNamespace

import numpy as np
from onnx import TensorProto, helper

from tools.conformance.__main__ import exclusions
from tools.conformance.run import Result, run
from tvmext.onnx_backend import InProcessBackend, TvmextBackend


def case(name: str, op: str, data: object = None) -> SimpleNamespace:
    info = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [2]) for n in "xy"]
    graph = helper.make_graph([helper.make_node(op, ["x"], ["y"])], name, info[:1], info[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 22)], ir_version=10)
    x = np.float32([-1, 2])
    sets = data or [([x], [abs(x)])]
    return SimpleNamespace(name=name, model=model, data_sets=sets, rtol=1e-3, atol=1e-7)


class Deadly:
    """Data that ends the process that reads it."""

    def __iter__(self):
        os._exit(3)


def test_every_end_of_a_test_is_a_result() -> None:
    tests = [
        ("node", case("passes", "Abs")),
        ("node", case("differs", "Neg")),
        ("node", case("is_refused", "Bernoulli")),
        ("node", case("crashes", "Abs", Deadly())),
        ("node", case("after", "Abs")),
    ]
    results: list[Result] = []
    run(tests, 1, 60.0, results.append)
    assert {row.name: row.status for row in results} == {
        "passes": "passed",
        "differs": "wrong",
        "is_refused": "refused",
        "crashes": "crash",
        "after": "passed",
    }


def test_each_excluded_test_has_a_reason() -> None:
    lines = exclusions()
    assert lines and all(pattern and len(reason) > 5 for pattern, reason in lines)


def test_an_input_that_is_a_setting_is_compiled_for() -> None:
    """The sizes of a Resize, twice, and one node through the class for users."""
    assert TvmextBackend.supports_device("CPU") and not TvmextBackend.supports_device("CUDA")
    info = [
        helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 1, 2, 2]),
        helper.make_tensor_value_info("s", TensorProto.INT64, [4]),
        helper.make_tensor_value_info("y", TensorProto.FLOAT, None),
    ]
    node = helper.make_node("Resize", ["x", "", "", "s"], ["y"], mode="nearest")
    graph = helper.make_graph([node], "g", info[:2], info[2:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9)
    prepared = InProcessBackend.prepare(model)
    assert prepared.bound == ("s",)
    x = np.arange(4, dtype=np.float32).reshape(1, 1, 2, 2)
    for size in (4, 6):
        (y,) = prepared.run([x, np.int64([1, 1, size, size])])
        assert y.shape == (1, 1, size, size)
    node = helper.make_node("Neg", ["x"], ["y"])
    np.testing.assert_array_equal(InProcessBackend.run_node(node, [x]).y, -x)
