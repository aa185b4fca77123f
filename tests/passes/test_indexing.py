"""Whatever the indices and divisors are: right where they are valid, harmless elsewhere."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
import tvm
from onnx import helper
from tvm import relax, s_tir, te, tirx, topi

import tvmext
from tvmext.errors import ModelError
from tvmext.passes.bound_indices import BoundIndices
from tvmext.passes.safe_division import SafeDivision

ort = pytest.importorskip("onnxruntime")

X = np.arange(24, dtype=np.float32).reshape(4, 6)
VALID = np.array([0, -1, 3, -4, 2, 1])
EXTREMES = {
    "int64": np.array([4, -5, 10**9, -(10**9), 2**63 - 1, -(2**63)], np.int64),
    "int32": np.array([4, -5, 10**9, -(10**9), 2**31 - 1, -(2**31)], np.int32),
}
NEAREST = [3, 0, 3, 0, 3, 0]
"""Where the extremes are clamped to in an axis of 4."""


def network(
    op: str, dtype: str, fixed: bool, index_shape: list[int], updates: bool, **attributes: Any
) -> onnx.ModelProto:
    """One operator with the inputs x, indices i and updates u; free dims unless `fixed`."""

    def dims(name: str, sizes: list[int]) -> list[int | str]:
        return list(sizes) if fixed else [f"{name}{s}" for s in sizes]

    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    index = dims("d", index_shape[:-1]) + index_shape[-1:]
    inputs = [("x", 1, dims("d", [4, 6])), ("i", kind, index)]
    if updates:
        inputs.append(("u", 1, dims("d", [4, 6])))
    nodes = [helper.make_node(op, [name for name, _, _ in inputs], ["y"], **attributes)]
    values = [helper.make_tensor_value_info(*value) for value in inputs]
    result = helper.make_tensor_value_info("y", 1, None)
    graph = helper.make_graph(nodes, "g", values, [result])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def stretched(values: np.ndarray, op: str) -> np.ndarray:
    """The six indices as input i of the operator."""
    if op == "Gather":
        return values.reshape(6, 1)
    if op.endswith("ND"):
        return values[:4].reshape(4, 1)
    return np.tile(values, (4, 1)) if op == "GatherElements" else np.tile(values[:4, None], (1, 6))


CASES = {
    "Gather": {},
    "GatherElements": {"axis": 0},
    "GatherND": {},
    "ScatterElements": {"axis": 0, "reduction": "add"},
    "ScatterND": {"reduction": "add"},
}


@pytest.mark.parametrize("fixed", [True, False])
@pytest.mark.parametrize(
    ("op", "dtype"), [(op, t) for op in CASES for t in EXTREMES if t == "int64" or op[-2:] != "ND"]
)
def test_indices_that_are_data(op: str, dtype: str, fixed: bool) -> None:
    scatter = op.startswith("Scatter")
    valid = stretched(VALID.astype(dtype), op)
    shape = list(valid.shape)
    made = network(op, dtype, fixed, shape, scatter, **CASES[op])
    compiled = tvmext.compile(made)
    feed = {"x": X, "i": valid} | ({"u": X + 1} if scatter else {})
    (want,) = ort.InferenceSession(made.SerializeToString()).run(None, feed)
    np.testing.assert_array_equal(compiled.run(feed)["y"], want)
    for part in (EXTREMES[dtype], np.roll(EXTREMES[dtype], 2)):
        got = compiled.run(feed | {"i": stretched(part, op)})["y"]
        if scatter:
            np.testing.assert_array_equal(got, X)
        elif part is EXTREMES[dtype] and op != "GatherElements":
            np.testing.assert_array_equal(got.reshape(-1, 6)[:4], modulo(op, part))


def modulo(op: str, part: np.ndarray) -> np.ndarray:
    """The rows that the first four extremes read: a Gather takes them modulo the size."""
    return X[part[:4].astype(np.int64) % 4] if op == "Gather" else X[NEAREST[:4]]


@pytest.mark.parametrize(
    ("op", "index", "attributes"),
    [
        ("Gather", [7], {"axis": 1}),
        ("Gather", [[0] * 40 + [-7]], {"axis": 1}),
        ("GatherElements", [[-5] * 6], {"axis": 0}),
        ("GatherND", [[0, 6]], {}),
    ],
)
def test_a_known_index_out_of_range_is_an_error(op: str, index: list, attributes: dict) -> None:
    node = helper.make_node(op, ["x", "i"], ["y"], name="picks", **attributes)
    x = helper.make_tensor_value_info("x", 1, [4, 6])
    y = helper.make_tensor_value_info("y", 1, None)
    known = onnx.numpy_helper.from_array(np.array(index, np.int64), "i")
    graph = helper.make_graph([node], "g", [x], [y], [known])
    opset = [helper.make_opsetid("", 18)]
    with pytest.raises(ModelError, match="picks"):
        tvmext.compile(helper.make_model(graph, opset_imports=opset, ir_version=9))


@pytest.mark.parametrize("dtype", ["int32", "int64"])
@pytest.mark.parametrize("op", ["Div", "Mod"])
def test_no_division_of_data_ends_the_process(op: str, dtype: str) -> None:
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    inputs = [helper.make_tensor_value_info(name, kind, ["n"]) for name in "ab"]
    graph = helper.make_graph(
        [helper.make_node(op, ["a", "b"], ["y"])],
        "g",
        inputs,
        [helper.make_tensor_value_info("y", kind, ["n"])],
    )
    opset = [helper.make_opsetid("", 18)]
    compiled = tvmext.compile(helper.make_model(graph, opset_imports=opset, ir_version=9))
    least = np.iinfo(dtype).min
    a, b = np.array([[7, -7, least, least, 3, -3], [0, 2, -1, 0, -1, -2]], dtype)
    got = compiled.run({"a": a, "b": b})["y"]
    want = [7, -3, least, least, -3, 1] if op == "Div" else [0, 1, 0, 0, 0, -1]
    np.testing.assert_array_equal(got, np.array(want, dtype))


def rewritten(outputs: list[te.Tensor], rewrite: tvm.transform.Pass) -> str:
    mod = tvm.IRModule({"main": te.create_prim_func(outputs)})
    return str(rewrite(mod)["main"].body)


def test_what_stays_inside_is_left_alone() -> None:
    x, i = te.placeholder((4, 6), name="x"), te.placeholder((5,), "int64", name="i")
    take = topi.take(x, i, 0, mode="clip")
    mod = tvm.IRModule({"main": te.create_prim_func([x, i, take])})
    assert BoundIndices()(mod)["main"].same_as(mod["main"])
    assert "max" in rewritten([x, i, topi.take(x, i, 0, mode="fast")], BoundIndices()).lower()


def test_an_axis_that_may_be_empty_gives_zero() -> None:
    n = tirx.Var("n", "int64")
    x = relax.Var("x", relax.TensorType((n, 3), "float32"))
    i = relax.Var("i", relax.TensorType((2,), "int64"))
    builder = relax.BlockBuilder()
    with builder.function("main", [x, i]):
        with builder.dataflow():
            out = builder.emit_output(relax.op.take(x, i, 0, mode="wrap"))
        builder.emit_func_output(out)
    got = tvmext.compile(builder.get()).run(
        {"x": np.zeros((0, 3), np.float32), "i": np.array([0, 5])}
    )
    (result,) = got.values()
    np.testing.assert_array_equal(result, np.zeros((2, 3)))


def test_division_by_a_constant_is_left_alone() -> None:
    x = te.placeholder((8,), "int64", name="x")
    halves = te.compute((8,), lambda i: tirx.floordiv(x[i], tirx.const(2, "int64")))
    mod = tvm.IRModule({"main": te.create_prim_func([x, halves])})
    assert SafeDivision()(mod)["main"].same_as(mod["main"])
    assert isinstance(mod["main"].body, s_tir.SBlockRealize)
