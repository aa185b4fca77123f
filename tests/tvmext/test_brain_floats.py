"""bfloat16 in kernels for CPUs: vectors of elements that are the same in all lanes."""

from __future__ import annotations

from collections.abc import Callable

import ml_dtypes
import numpy as np
import onnx
import onnx.parser
import pytest
import tvm
from tvm import tirx
from tvm.ir import Expr, Var

import tvmext
from tvmext.build.kernels import code_target, kernel_pipeline

LANES = 64
LLVM = tvm.target.Target("llvm")
KIND = ml_dtypes.bfloat16
X = np.arange(1, LANES + 1).astype(KIND)


def stored(value: Callable[[Var, Expr], Expr]) -> np.ndarray:
    """y after ``y[lane] = value(x, lane)`` in one vector loop."""
    x, y = (tirx.decl_buffer([LANES], "bfloat16", name) for name in "xy")
    lane = Var("lane", "int32")
    store = tirx.BufferStore(y, value(x, lane), [lane])
    loop = tirx.For(lane, 0, LANES, tirx.ForKind.VECTORIZED, store)
    func = tirx.PrimFunc([x, y], loop).with_attrs({"global_symbol": "main", "s_tir": True})
    library = tirx.build(tvm.IRModule({"main": func}), code_target(LLVM), kernel_pipeline(LLVM))
    result = tvm.runtime.tensor(np.zeros(LANES, KIND))
    library["main"](tvm.runtime.tensor(X), result)
    return result.numpy()


def const(value: float) -> Expr:
    return tirx.const(value, "bfloat16")


@pytest.mark.parametrize("value", [0.0, -0.0, 1.5, np.inf, -np.inf, np.nan])
def test_a_constant_in_all_lanes(value: float) -> None:
    expected = np.full(LANES, value, KIND)
    got = stored(lambda _x, _lane: const(value))
    assert np.array_equal(got.astype("float32"), expected.astype("float32"), equal_nan=True)
    assert np.array_equal(np.signbit(got), np.signbit(expected)) or np.isnan(value)


def test_one_element_in_all_lanes() -> None:
    assert (stored(lambda x, _lane: x[5]) == X[5]).all()
    assert (stored(lambda x, lane: x[lane // LANES + 7]) == X[7]).all()
    assert (stored(lambda x, _lane: tirx.Select(x[3] > x[2], x[4], const(0))) == X[4]).all()


def test_one_element_in_some_lanes() -> None:
    got = stored(lambda x, lane: tirx.Select(lane < 7, x[9], tirx.Select(lane < 9, x[lane], x[0])))
    expected = np.where(np.arange(LANES) < 9, X, X[0])
    expected[:7] = X[9]
    assert np.array_equal(got, expected)


def test_the_bits_of_a_constant() -> None:
    def value(x: Expr, lane: Var) -> Expr:
        bits = tirx.reinterpret("uint16", x[lane]) + tirx.reinterpret("uint16", const(1.5))
        return tirx.reinterpret("bfloat16", bits)

    expected = X.view(np.uint16) + np.array(1.5, KIND).view(np.uint16)
    assert np.array_equal(stored(value).view(np.uint16), expected)


def test_elements_that_are_not_zero() -> None:
    """The zero is widened in the kernel that compares."""
    made = onnx.parser.parse_model("""<ir_version: 10, opset_import: ["" : 21]>
        m (bfloat16[n, 3] x) => (int64[2, k] y) { y = NonZero(x) }""")
    x = np.array([[0, 1, -0.0], [-3, 0, 2]], KIND)
    (places,) = tvmext.compile(made, cache="off").run(x).values()
    assert places.tolist() == [[0, 1, 1], [1, 0, 2]]


@pytest.mark.parametrize("level", [0, 2])
def test_tensors_whose_sizes_are_data(level: int) -> None:
    model = tvmext.compile(model_of_sizes(), options=tvmext.Options(opt_level=level), cache="off")
    one, nothing = np.array([[-3]], KIND), np.zeros((0, 3), KIND)
    for size in (0, 1, 33, 64):
        results = model.run(np.array([3, size]), one, nothing, np.array([2, 0, size]))
        shapes = [result.shape for result in results.values()]
        assert shapes == [(3, size), (3, size), (2, 0, size)]
        assert (results["filled"] == KIND(1.5)).all()
        assert (results["spread"] == one).all()


def model_of_sizes() -> onnx.ModelProto:
    model = onnx.parser.parse_model("""
        <ir_version: 10, opset_import: ["" : 21]>
        m (int64[2] size, bfloat16[1, 1] x, bfloat16[0, 3] nothing, int64[3] shape)
          => (bfloat16[a, b] filled, bfloat16[c, d] spread, bfloat16[e, f, g] shaped) {
          filled = ConstantOfShape (size)
          spread = Expand (x, size)
          shaped = Reshape <allowzero = 1> (nothing, shape)
        }""")
    value = onnx.helper.make_tensor("value", onnx.TensorProto.BFLOAT16, [1], [1.5])
    model.graph.node[0].attribute.append(onnx.helper.make_attribute("value", value))
    return model
