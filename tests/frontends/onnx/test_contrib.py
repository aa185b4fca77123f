"""Operators of com.microsoft against ONNX Runtime, whose they are."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from tvmext.errors import UnsupportedError
from tvmext.frontends import load
from tvmext.onnx_backend import InProcessBackend

RNG = np.random.default_rng(0)
SCALE, ZERO = np.float32(0.04), np.uint8(120)


def floats(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


def bytes_(*shape: int) -> np.ndarray:
    return RNG.integers(0, 256, shape, np.uint8)


X, ROW = floats(2, 5, 8), floats(8)
IDS = RNG.integers(0, 9, (2, 5)).astype(np.int32)
QUANTIZED = [bytes_(2, 3, 4, 4), SCALE, ZERO]
OUT = [np.float32(0.07), np.uint8(99)]

CASES = {
    "FastGelu": ("FastGelu", [X, ROW], {}, 1),
    "BiasGelu": ("BiasGelu", [X, ROW], {}, 1),
    "QuickGelu": ("QuickGelu", [X], {"alpha": 1.5}, 1),
    "SkipLayerNormalization": (
        "SkipLayerNormalization", [X, floats(2, 5, 8), ROW, ROW, ROW], {"epsilon": 1e-3}, 4,
    ),
    "SkipSimplifiedLayerNormalization": (
        "SkipSimplifiedLayerNormalization", [X, floats(2, 5, 8), ROW], {"epsilon": 1e-3}, 1,
    ),
    "EmbedLayerNormalization": (
        "EmbedLayerNormalization",
        [IDS, IDS % 2, floats(9, 8), floats(7, 8), floats(2, 8), ROW, ROW, np.int32(IDS > 2)],
        {},
        2,
    ),
    "QEmbedLayerNormalization": (
        "QEmbedLayerNormalization",
        [IDS, IDS % 2, bytes_(9, 8), bytes_(7, 8), bytes_(2, 8), bytes_(8), bytes_(8),
         np.int32(IDS > 2), *5 * [SCALE], *5 * [ZERO]],
        {},
        2,
    ),
    "FusedConv": (
        "FusedConv",
        [floats(1, 3, 6, 6), floats(4, 3, 3, 3), floats(4)],
        {"activation": "LeakyRelu", "activation_params": [0.2], "pads": [1, 1, 1, 1]},
        1,
    ),
    "MatMulNBits": (
        "MatMulNBits",
        [floats(3, 40), bytes_(6, 2, 16), np.abs(floats(12))],
        {"bits": 4, "block_size": 32, "K": 40, "N": 6},
        1,
    ),
    "MatMulNBits, zero points": (
        "MatMulNBits",
        [floats(3, 96), bytes_(6, 3, 16), np.abs(floats(18)), bytes_(12)],
        {"bits": 4, "block_size": 32, "K": 96, "N": 6},
        1,
    ),
    "MatMulNBits, bias": (
        "MatMulNBits",
        [floats(3, 32), bytes_(6, 1, 16), np.abs(floats(6)), None, None, floats(6)],
        {"bits": 4, "block_size": 32, "K": 32, "N": 6},
        1,
    ),
    "FusedMatMul": (
        "FusedMatMul", [X, floats(2, 8, 5)], {"transA": 1, "transB": 1, "alpha": 0.3}, 1,
    ),
    "FusedGemm": (
        "FusedGemm",
        [floats(8, 5), floats(8, 6), floats(6)],
        {"transA": 1, "alpha": 0.5, "activation": "LeakyRelu", "activation_alpha": 0.2},
        1,
    ),
    "DynamicQuantizeMatMul": (
        "DynamicQuantizeMatMul",
        [X, bytes_(8, 6), np.abs(floats(6)), bytes_(6), floats(6)],
        {},
        1,
    ),
    "MatMulIntegerToFloat": (
        "MatMulIntegerToFloat",
        [bytes_(2, 5, 8), bytes_(8, 6), SCALE, np.abs(floats(6)), ZERO, bytes_(6), floats(6)],
        {},
        1,
    ),
    "MatMulInteger16": (
        "MatMulInteger16", [np.int16(X * 99), np.int16(floats(8, 6) * 99)], {}, 1,
    ),
    "QGemm": (
        "QGemm",
        [bytes_(5, 8), SCALE, ZERO, bytes_(6, 8), np.abs(floats(6)), bytes_(6),
         RNG.integers(-99, 99, 6, np.int32), *OUT],
        {"transB": 1, "alpha": 0.5},
        1,
    ),
    "QLinearSoftmax": (
        "QLinearSoftmax",
        [*QUANTIZED, np.float32(1 / 256), np.uint8(0)],
        {"axis": -1, "opset": 13},
        1,
    ),
    "QLinearAveragePool": (
        "QLinearAveragePool",
        [*QUANTIZED, *OUT],
        {"channels_last": 1, "kernel_shape": [2, 2], "pads": [0, 1, 0, 1]},
        1,
    ),
    "QLinearWhere": ("QLinearWhere", [QUANTIZED[0] > 99, *QUANTIZED, *QUANTIZED, *OUT], {}, 1),
    "QLinearAdd": ("QLinearAdd", [*QUANTIZED, *QUANTIZED, *OUT], {}, 1),
    "QLinearMul": ("QLinearMul", [*QUANTIZED, *QUANTIZED, *OUT], {}, 1),
    "QLinearSigmoid": ("QLinearSigmoid", [*QUANTIZED, *OUT], {}, 1),
    "QLinearLeakyRelu": ("QLinearLeakyRelu", [*QUANTIZED, *OUT], {"alpha": 0.1}, 1),
    "QLinearGlobalAveragePool": ("QLinearGlobalAveragePool", [*QUANTIZED, *OUT], {}, 1),
    "QLinearConcat": ("QLinearConcat", [*OUT, *QUANTIZED, *QUANTIZED], {"axis": 1}, 1),
}  # fmt: skip
EMBEDDED = (0, 1, 7)
DATA = {
    "EmbedLayerNormalization": EMBEDDED,
    "QEmbedLayerNormalization": EMBEDDED,
    "QLinearConcat": (2, 5),
}
"""Positions that are inputs of the graph, by default the first; the rest are weights."""


def model(op: str, arrays: list, attributes: dict, outputs: int):
    data = DATA.get(op, (0,))
    names = ["" if array is None else f"x{k}" for k, array in enumerate(arrays)]
    results = ["y", *(f"y{k}" if k == outputs - 1 else "" for k in range(1, outputs))]
    node = helper.make_node(op, names, results, domain="com.microsoft", **attributes)
    inputs, weights = [], []
    for k, (name, array) in enumerate(zip(names, map(np.asarray, arrays))):
        if not name:
            continue
        kind = helper.np_dtype_to_tensor_dtype(array.dtype)
        if k in data:
            inputs.append(helper.make_tensor_value_info(name, kind, array.shape))
        else:
            weights.append(numpy_helper.from_array(array, name))
    outs = [helper.make_empty_tensor_value_info(name) for name in results if name]
    graph = helper.make_graph([node], "contrib", inputs, outs, weights)
    imports = [helper.make_opsetid("", 14), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=imports, ir_version=8), data


@pytest.mark.parametrize("name", CASES)
def test_against_onnx_runtime(name: str) -> None:
    op, arrays, attributes, outputs = CASES[name]
    proto, data = model(op, arrays, attributes, outputs)
    session = onnxruntime.InferenceSession(proto.SerializeToString())
    feeds = {f"x{k}": np.asarray(arrays[k]) for k in data}
    wants = session.run(None, feeds)
    for got, want in zip(InProcessBackend.run_model(proto, list(feeds.values())), wants):
        assert got.dtype == want.dtype
        if want.dtype == np.uint8:  # a half may round either way
            assert np.abs(got.astype(int) - want).max() <= 1
        else:
            np.testing.assert_allclose(got, want, rtol=1e-4, atol=2e-4 if "Gelu" in op else 1e-5)


def test_channels_last_convolution() -> None:
    """NhwcConv, which ONNX Runtime does not have on a CPU, against Conv of the transposed."""
    x, w = floats(1, 6, 6, 4), floats(4, 2, 3, 3)
    attributes = {"group": 2, "pads": [1, 1, 1, 1], "strides": [2, 2]}
    proto, _ = model("NhwcConv", [x, w], attributes, 1)
    nchw, _ = model("FusedConv", [x.transpose(0, 3, 1, 2), w], attributes, 1)
    session = onnxruntime.InferenceSession(nchw.SerializeToString())
    (want,) = session.run(None, {"x0": x.transpose(0, 3, 1, 2)})
    (got,) = InProcessBackend.run_model(proto, [x])
    np.testing.assert_allclose(got, want.transpose(0, 2, 3, 1), rtol=1e-4, atol=1e-5)


def test_every_unknown_operator_is_named() -> None:
    """Of a domain or of ONNX's own, a malformed node of a known one too: all in one error."""
    nodes = [
        helper.make_node(
            "MatMulNBits", ["x", "w"], ["a"], "first", domain="com.microsoft", N=1 << 40
        ),
        helper.make_node("Nonsense", ["x"], ["b"], "second", domain="com.example"),
        helper.make_node("Bernoulli", ["x"], ["c"], "third"),
    ]
    info = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [3]) for name in "xabc"]
    weight = numpy_helper.from_array(np.zeros(3, np.uint8), "w")
    graph = helper.make_graph(nodes, "g", info[:1], info[1:], [weight])
    imports = [("", 22), ("com.microsoft", 1), ("com.example", 3)]
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid(*i) for i in imports])
    with pytest.raises(UnsupportedError) as caught:
        load(proto)
    found = {(op.op_type, op.domain, op.opset, op.node) for op in caught.value.ops}
    assert ("MatMulNBits", "com.microsoft", 1, "first") in found
    assert ("Nonsense", "com.example", 3, "second") in found
    assert len(found) == 3 and caught.value.exit_code == 3
