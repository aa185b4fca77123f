"""Convolutions of bytes in NCHW, through the whole compiler, against ONNX Runtime."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import tvmext

ort = pytest.importorskip("onnxruntime")


def network(channels: int, kernel: int, pad: int, stride: int, dtype: str) -> onnx.ModelProto:
    """One QLinearConv with 48 outputs, scales and zero points unlike 1 and 0."""
    rng = np.random.default_rng(channels)
    weights = {
        "sx": np.float32(0.02),
        "zx": np.array(3, dtype),
        "w": rng.integers(-127, 127, (48, channels, kernel, kernel), "int8"),
        "sw": np.linspace(0.005, 0.02, 48, dtype="float32"),
        "zw": np.zeros(48, "int8"),
        "sy": np.float32(0.5),
        "zy": np.array(60, dtype),
        "b": rng.integers(-50, 50, 48, "int32"),
    }
    node = helper.make_node(
        "QLinearConv", ["x", *weights], ["y"], pads=[pad] * 4, strides=[stride] * 2
    )
    kind = TensorProto.UINT8 if dtype == "uint8" else TensorProto.INT8
    graph = helper.make_graph(
        [node],
        "convolution",
        [helper.make_tensor_value_info("x", kind, [1, channels, 13, 14])],
        [helper.make_tensor_value_info("y", kind, None)],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


@pytest.mark.parametrize(
    ("channels", "kernel", "pad", "stride", "dtype"),
    [
        (3, 3, 1, 1, "uint8"),
        (3, 7, 3, 2, "int8"),
        (5, 3, 0, 1, "uint8"),
        (64, 1, 0, 1, "uint8"),
        (8, 3, 1, 2, "int8"),
    ],
)
def test_agrees_with_onnx_runtime(
    channels: int, kernel: int, pad: int, stride: int, dtype: str
) -> None:
    made = network(channels, kernel, pad, stride, dtype)
    limits = np.iinfo(dtype)
    rng = np.random.default_rng(1)
    x = rng.integers(limits.min, limits.max, (1, channels, 13, 14), dtype, endpoint=True)
    compiled = tvmext.compile(made)
    options = ort.SessionOptions()
    if dtype == "uint8":  # sums of its products overflow where the processor has no VNNI
        options.add_session_config_entry("session.x64quantprecision", "1")
    (expected,) = ort.InferenceSession(made.SerializeToString(), options).run(None, {"x": x})
    y = compiled.run(x)["y"]
    # A quotient may be rounded the other way where it is half way between two bytes.
    assert np.abs(y.astype(int) - expected.astype(int)).max() <= 1
    kernels = [
        made for made in compiled.metadata.decisions.values() if made["rule"] in ("conv", "gemm")
    ]
    assert len(kernels) == 1
    if "avx512vnni" in str(compiled.metadata.target):
        assert kernels[0]["decision"]["dot"]
