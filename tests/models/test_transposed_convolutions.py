"""Up-convolutions as wide as their stride, through the whole compiler, against ONNX Runtime."""

from __future__ import annotations

import numpy as np
import onnx
import onnx.parser
import pytest

import tvmext
from tvmext.options import Options

ort = pytest.importorskip("onnxruntime")

UP = """agraph (float[batch, 24, height, width] x, float[batch, 12, high, wide] skip)
    => (float[batch, 16, high, wide] y)
<float[24, 20, 2, 2] w, float[20] b, float[16, 32, 1, 1] v> {
    up = ConvTranspose<strides=[2, 2]>(x, w, b) r = Relu(up)
    joint = Concat<axis=1>(r, skip) y = Conv(joint, v)
}"""
DECODER = """agraph (float[batch, 16, height, width] x) => (float[batch, 3, high, wide] y)
<float[16, 24, 4, 4] w, float[24] b, float[24, 3, 2, 2] v> {
    up = ConvTranspose<strides=[4, 4]>(x, w, b) r = Relu(up) y = ConvTranspose<strides=[2, 2]>(r, v)
}"""
SIZES = ((1, 1, 1), (2, 2, 3), (1, 5, 17), (3, 17, 1), (0, 2, 2))


def model(text: str) -> onnx.ModelProto:
    made = onnx.parser.parse_model(f'<ir_version: 9, opset_import: ["" : 18]> {text}')
    rng = np.random.default_rng(0)
    for value in made.graph.value_info:  # the declared values are the weights
        shape = [dim.dim_value for dim in value.type.tensor_type.shape.dim]
        array = rng.standard_normal(shape, dtype=np.float32)
        made.graph.initializer.append(onnx.numpy_helper.from_array(array, value.name))
    return made


def compare(compiled: tvmext.CompiledModel, made: onnx.ModelProto, sizes: tuple[int, ...]) -> None:
    batch, height, width = sizes
    rng, feed = np.random.default_rng(1), {}
    for value in made.graph.input:
        _, channels, *_ = (dim.dim_value for dim in value.type.tensor_type.shape.dim)
        times = 1 if value.name == "x" else 2
        shape = (batch, channels, height * times, width * times)
        feed[value.name] = rng.standard_normal(shape).astype("float32")
    (expected,) = ort.InferenceSession(made.SerializeToString()).run(None, feed)
    np.testing.assert_allclose(compiled.run(feed)["y"], expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("level", [1, 2])
@pytest.mark.parametrize("text", [UP, DECODER], ids=["up", "decoder"])
def test_free_sizes(text: str, level: int) -> None:
    """At level 1 channels stay where ONNX has them."""
    made = model(text)
    compiled = tvmext.compile(made, options=Options(opt_level=level))
    rules = [one["rule"] for one in compiled.metadata.decisions.values()]
    assert "phases" not in rules and {"gemm", "conv"} & set(rules)
    for sizes in SIZES:
        compare(compiled, made, sizes)


@pytest.mark.parametrize("text", [UP, DECODER], ids=["up", "decoder"])
def test_fixed_sizes(text: str) -> None:
    made = model(text)
    dims = {"batch": 2, "height": 6, "width": 9}
    compiled = tvmext.compile(made, dims=dims)
    assert "phases" not in [one["rule"] for one in compiled.metadata.decisions.values()]
    compare(compiled, made, (2, 6, 9))
