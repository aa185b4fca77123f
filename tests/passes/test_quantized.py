"""Quantized networks: bytes are multiplied, and results are ONNX Runtime's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx
import onnxruntime
import pytest
import tvm
from onnx import helper, numpy_helper
from tvm import relax

import tvmext
from tests.passes.modules import operators
from tvmext.frontends import load
from tvmext.passes.bind_model import BindModel
from tvmext.passes.quantized.decompose import DecomposeQuantize
from tvmext.passes.quantized.products import QuantizedProducts
from tvmext.passes.quantized.sink import SinkDequantize
from tvmext.passes.quantized.unsigned import UnsignedActivations

RNG = np.random.default_rng(0)
Node = onnx.NodeProto


def drawn(dtype: str, *shape: int) -> np.ndarray:
    limits = np.iinfo(dtype)
    return RNG.integers(limits.min, limits.max, shape, dtype, endpoint=True)


def node(op: str, inputs: str, output: str, **attributes: object) -> Node:
    return helper.make_node(op, inputs.split(), [output], **attributes)


def model(
    nodes: Sequence[Node],
    inputs: Mapping[str, tuple[str, Sequence[int | str]]],
    weights: Mapping[str, np.ndarray],
) -> onnx.ModelProto:
    """A model whose only output is `y`."""
    graph = helper.make_graph(
        nodes,
        "quantized",
        [
            helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(np.dtype(t)), dims)
            for name, (t, dims) in inputs.items()
        ],
        [helper.make_empty_tensor_value_info("y")],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    bare = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return onnx.shape_inference.infer_shapes(bare)


def integers(proto: onnx.ModelProto) -> tvm.IRModule:
    """The network with its quantized products as integers."""
    network = load(proto)
    mod = network.mod
    for step in (
        BindModel(network),
        relax.transform.CanonicalizeBindings(),
        UnsignedActivations(),
        SinkDequantize(),
        QuantizedProducts(),
        DecomposeQuantize(),
        relax.transform.DeadCodeElimination(),
    ):
        mod = step(mod)
    return mod


def product_types(mod: tvm.IRModule) -> set[tuple[str, ...]]:
    """The types of the operands and of the result of every product."""
    found = set()

    def visit(expr: relax.Expr) -> None:
        name = getattr(getattr(expr, "op", None), "name", "")
        if name == "relax.matmul" or name.startswith("relax.nn.conv"):
            found.add(tuple(str(each.ty.dtype) for each in (*expr.args, expr)))

    relax.analysis.post_order_visit(mod["main"], visit)
    return found


def run(proto: onnx.ModelProto, feeds: Mapping[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """What we and ONNX Runtime compute."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    # Without VNNI it sums products in 16 bits, which overflow, unless told not to.
    options.add_session_config_entry("session.x64quantprecision", "1")
    session = onnxruntime.InferenceSession(
        proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    (theirs,) = session.run(None, dict(feeds))
    return tvmext.compile(proto).run(dict(feeds))["y"], theirs


def scales(**values: float | Sequence[float]) -> dict[str, np.ndarray]:
    return {name: np.array(value, np.float32) for name, value in values.items()}


def qdq_conv(kind: str, zero: int, relu: bool) -> onnx.ModelProto:
    """x -> Q -> DQ -> Conv with a bias (-> Relu) -> Q -> DQ -> MaxPool -> Q -> DQ."""
    weight_scale = np.linspace(0.001, 0.01, 6, dtype="float32")
    nodes = [
        node("QuantizeLinear", "x sx zx", "xq"),
        node("DequantizeLinear", "xq sx zx", "xd"),
        node("DequantizeLinear", "w sw zw", "wd", axis=0),
        node("DequantizeLinear", "b sb zb", "bd", axis=0),
        node("Conv", "xd wd bd", "c", pads=[1, 1, 1, 1], strides=[2, 1]),
        node("Relu", "c", "r") if relu else node("Identity", "c", "r"),
        node("QuantizeLinear", "r sy zy", "rq"),
        node("DequantizeLinear", "rq sy zy", "rd"),
        node("MaxPool", "rd", "p", kernel_shape=[2, 2]),
        node("QuantizeLinear", "p sy zy", "pq"),
        node("DequantizeLinear", "pq sy zy", "y"),
    ]
    weights = {
        **scales(sx=0.02, sw=weight_scale, sb=np.float32(0.02) * weight_scale, sy=0.03),
        "zx": np.array(zero, kind),
        "zy": np.array(zero, kind),
        "w": drawn("int8", 6, 5, 3, 3),
        "zw": np.zeros(6, "int8"),
        "b": drawn("int16", 6).astype("int32"),
        "zb": np.zeros(6, "int32"),
    }
    return model(nodes, {"x": ("float32", ("n", 5, 9, 8))}, weights)


@pytest.mark.parametrize(
    "kind, zero, relu",
    [("uint8", 117, False), ("uint8", 0, True), ("int8", -128, True), ("int8", 5, True)],
)
def test_convolution(kind: str, zero: int, relu: bool) -> None:
    """Padding is the zero point, the bias joins the integers; equal to the last bit."""
    proto = qdq_conv(kind, zero, relu)
    mod = integers(proto)
    assert product_types(mod) == {("uint8", "int8", "int32")}
    found = operators(mod)
    assert found["relax.nn.relu"] == 0 and found["relax.divide"] == 1, "one quantize: of the input"
    padded = zero not in (0, -128)
    assert found["relax.nn.pad"] == padded
    ours, theirs = run(proto, {"x": RNG.standard_normal((2, 5, 9, 8)).astype("float32")})
    np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("zero", [0, 3])
def test_matmul_of_two_inputs(zero: int) -> None:
    """uint8 times uint8, as in attention: the second becomes int8, zero points become sums."""
    nodes = [node("QLinearMatMul", "a sa za b sb zb sy zy", "y")]
    weights = {
        **scales(sa=0.01, sb=0.02, sy=0.5),
        "za": np.uint8(zero),
        "zb": np.uint8(120 + zero),
        "zy": np.uint8(128),
    }
    proto = model(nodes, {"a": ("uint8", (2, "m", 9)), "b": ("uint8", (2, 9, 7))}, weights)
    assert product_types(integers(proto)) == {("uint8", "int8", "int32")}
    ours, theirs = run(proto, {"a": drawn("uint8", 2, 5, 9), "b": drawn("uint8", 2, 9, 7)})
    np.testing.assert_array_equal(ours, theirs)


def test_dynamically_quantized_matmul() -> None:
    """The zero point of the data is known at run time only."""
    nodes = [
        helper.make_node("DynamicQuantizeLinear", ["x"], ["xq", "sx", "zx"]),
        node("MatMulInteger", "xq w zx zw", "i"),
        node("Cast", "i", "f", to=1),
        node("Mul", "sx sw", "s"),
        node("Mul", "f s", "y"),
    ]
    weights = {**scales(sw=0.01), "w": drawn("uint8", 12, 10), "zw": np.uint8(130)}
    proto = model(nodes, {"x": ("float32", ("m", 12))}, weights)
    assert product_types(integers(proto)) == {("uint8", "int8", "int32")}
    ours, theirs = run(proto, {"x": RNG.standard_normal((5, 12)).astype("float32")})
    np.testing.assert_allclose(ours, theirs, rtol=1e-6)


def test_transposed_weight_with_its_own_scales() -> None:
    """Gemm reads the weight transposed: constants are moved at compile time."""
    nodes = [
        node("DequantizeLinear", "x sx zx", "xd"),
        node("DequantizeLinear", "w sw zw", "wd", axis=0),
        node("DequantizeLinear", "b sb zb", "bd", axis=0),
        node("Gemm", "xd wd bd", "g", transB=1),
        node("QuantizeLinear", "g sy zy", "y"),
    ]
    weight_scale = np.linspace(0.001, 0.01, 6, dtype="float32")
    weights = {
        **scales(sx=0.02, sw=weight_scale, sb=np.float32(0.02) * weight_scale, sy=0.03),
        "zx": np.uint8(9),
        "zy": np.uint8(99),
        "w": drawn("int8", 6, 12),
        "zw": np.zeros(6, "int8"),
        "b": drawn("int16", 6).astype("int32"),
        "zb": np.zeros(6, "int32"),
    }
    proto = model(nodes, {"x": ("uint8", (5, 12))}, weights)
    assert product_types(integers(proto)) == {("uint8", "int8", "int32")}
    ours, theirs = run(proto, {"x": drawn("uint8", 5, 12)})
    assert np.abs(ours.astype(int) - theirs).max() <= 1
    assert (ours == theirs).mean() > 0.95


@pytest.mark.parametrize(
    "changed",
    [
        {"sa": np.linspace(0.1, 0.2, 9, dtype="float32"), "za": np.zeros(9, "uint8")},
        {"sb": np.linspace(0.1, 0.2, 9, dtype="float32"), "zb": np.zeros(9, "uint8")},
    ],
    ids=["left", "right"],
)
def test_scales_along_the_sum_stay_real(changed: dict[str, np.ndarray]) -> None:
    axis = {"axis": 1} if "sa" in changed else {"axis": 0}
    nodes = [
        node("DequantizeLinear", "a sa za", "ad", **(axis if "sa" in changed else {})),
        node("DequantizeLinear", "b sb zb", "bd", **(axis if "sb" in changed else {})),
        node("MatMul", "ad bd", "y"),
    ]
    weights = {**scales(sa=0.01, sb=0.02), "za": np.uint8(3), "zb": np.uint8(4), **changed}
    proto = model(nodes, {"a": ("uint8", (5, 9)), "b": ("uint8", (9, 7))}, weights)
    assert product_types(integers(proto)) == {("float32", "float32", "float32")}
