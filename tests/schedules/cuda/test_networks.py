"""Networks compiled for a GPU: run in the emulator, compared with ONNX Runtime."""

from __future__ import annotations

from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.schedules.cpu.kernels import normal
from tests.zoo import light
from tools.gpu.networks import fix_dims, narrowed
from tools.zoo.case import ZOO
from tvmext.options import Options

from . import networks

BFLOAT16 = ml_dtypes.bfloat16


@pytest.mark.parametrize(
    ("name", "tf32"), [("vtc_shufflenet_unit", True), ("qwen2_moe.legacy.dyn", False)]
)
def test_network(name: str, tf32: bool, tmp_path: Path) -> None:
    model = light.load(ZOO / f"{name}.onnx")
    sizes = {"batch": 1, "seq": 5, "past": 2} if name.startswith("qwen") else {}
    inputs = light.make_inputs(model, **sizes)
    path = tmp_path / "model.onnx"
    light.save(model, path)
    got = networks.run(path, inputs, options=Options(tf32=tf32))
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    expected = session.run(list(got), inputs)
    for result, reference in zip(got.values(), expected):
        wrong = (1e-2, 1e-2) if tf32 else (1e-3, 1e-4)
        np.testing.assert_allclose(result, reference, *wrong)


def test_convolutions_in_bfloat16(tmp_path: Path) -> None:
    """On matrix instructions, what follows them in the same kernels."""
    model = light.load(ZOO / "vtc_shufflenet_unit.onnx")
    inputs = light.make_inputs(model)
    path = tmp_path / "model.onnx"
    light.save(model, path)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (expected,) = session.run(None, inputs)
    fix_dims(model, inputs)
    light.save(narrowed(model, "bfloat16"), path)
    rules = networks.lowered(path)[2]
    assert rules.count("mma") == 2 and "contract" not in rules
    (got,) = networks.run(path, {n: x.astype(BFLOAT16) for n, x in inputs.items()}).values()
    off = np.sqrt(np.mean((got.astype("float32") - expected) ** 2) / np.mean(expected**2))
    assert off < 0.02


def test_attention_in_halves(tmp_path: Path) -> None:
    """Heads of a sequence of any length: products, loaders and softmax in float16."""
    weights = {n: normal(32, 32, seed=i).astype("float16") / 6 for i, n in enumerate("qkvo")}
    heads = numpy_helper.from_array(np.array([0, 0, 2, 16]), "heads")
    whole = numpy_helper.from_array(np.array([0, 0, 32]), "whole")
    nodes = []
    for name, order in (("q", [0, 2, 1, 3]), ("k", [0, 2, 3, 1]), ("v", [0, 2, 1, 3])):
        nodes += [
            helper.make_node("MatMul", ["x", f"w{name}"], [f"{name}0"]),
            helper.make_node("Reshape", [f"{name}0", "heads"], [f"{name}1"]),
            helper.make_node("Transpose", [f"{name}1"], [name], perm=order),
        ]
    nodes += [
        helper.make_node("MatMul", ["q", "k"], ["scores"]),
        helper.make_node("Softmax", ["scores"], ["p"], axis=-1),
        helper.make_node("MatMul", ["p", "v"], ["mixed"]),
        helper.make_node("Transpose", ["mixed"], ["turned"], perm=[0, 2, 1, 3]),
        helper.make_node("Reshape", ["turned", "whole"], ["joined"]),
        helper.make_node("MatMul", ["joined", "wo"], ["y"]),
    ]
    tensors = [numpy_helper.from_array(value, f"w{name}") for name, value in weights.items()]
    x, y = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT16, [1, "seq", 32]) for name in "xy"
    )
    graph = helper.make_graph(nodes, "attention", [x], [y], [*tensors, heads, whole])
    path = tmp_path / "model.onnx"
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path
    )
    inputs = {"x": normal(1, 21, 32, seed=9).astype("float16")}
    got = networks.run(path, inputs)["y"]
    exact = _attention(inputs["x"][0], weights)
    np.testing.assert_allclose(got[0], exact, rtol=1e-2, atol=1e-2)


def _attention(x: np.ndarray, weights: dict[str, np.ndarray]) -> np.ndarray:
    wide = {name: value.astype("float64") for name, value in weights.items()}
    q, k, v = ((x @ wide[n]).reshape(-1, 2, 16).transpose(1, 0, 2) for n in "qkv")
    scores = q @ k.transpose(0, 2, 1)
    power = np.exp(scores - scores.max(-1, keepdims=True))
    mixed = power / power.sum(-1, keepdims=True) @ v
    return mixed.transpose(1, 0, 2).reshape(-1, 32) @ wide["o"]


def test_what_only_the_run_sizes_and_rows_that_alone_are_read(tmp_path: Path) -> None:
    """NonZero, of which the run knows the size; the first row of a product, all else left out."""
    nodes = [
        helper.make_node("NonZero", ["x"], ["places"]),
        helper.make_node("MatMul", ["x", "w"], ["all"]),
        helper.make_node("Relu", ["all"], ["some"]),
        helper.make_node("Gather", ["some", "first"], ["row"], axis=0),
    ]
    w, first = normal(24, 16, seed=1), np.array(0)
    x = normal(9, 24) * (normal(9, 24, seed=2) > 0)
    tensors = [numpy_helper.from_array(w, "w"), numpy_helper.from_array(first, "first")]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [9, 24])],
        [
            helper.make_tensor_value_info("places", TensorProto.INT64, [2, "n"]),
            helper.make_tensor_value_info("row", TensorProto.FLOAT, [16]),
        ],
        tensors,
    )
    path = tmp_path / "model.onnx"
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path
    )
    got = networks.run(path, {"x": x})
    np.testing.assert_array_equal(got["places"], np.array(np.nonzero(x)))
    np.testing.assert_allclose(got["row"], np.maximum(x[0] @ w, 0), rtol=1e-4, atol=1e-5)
