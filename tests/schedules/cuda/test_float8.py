"""Quantized networks of 8-bit floats: their products take the bytes as they are."""

from __future__ import annotations

from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.schedules.cpu.kernels import normal
from tvmext.arch.cuda import from_name

from . import networks
from .device import ARCH, IS_GPU

ADA = ARCH if IS_GPU else from_name("sm_89")
pytestmark = pytest.mark.skipif(
    "float8_e5m2" not in ADA.matrix_types, reason="this GPU multiplies no floats of 8 bits"
)
KINDS = {
    ml_dtypes.float8_e4m3fn: TensorProto.FLOAT8E4M3FN,
    ml_dtypes.float8_e5m2: TensorProto.FLOAT8E5M2,
}


def quantized(rows: int | str, real: type, weights: type, turned: bool) -> onnx.ModelProto:
    """relu(x w + b): x rounded to 8 bits by one scale, w stored so, with a scale per column."""
    dtype = helper.np_dtype_to_tensor_dtype(np.dtype(real))
    w = (normal(40, 48) * 16).astype(weights)
    w = w if turned else w.T.copy()
    x_kind, w_kind = TensorProto.FLOAT8E4M3FN, KINDS[weights]
    tensors = [
        helper.make_tensor("w", w_kind, w.shape, w.tobytes(), raw=True),
        helper.make_tensor("zero", x_kind, (), b"\0", raw=True),
        numpy_helper.from_array(real(0.05), "sx"),
        numpy_helper.from_array((abs(normal(40, seed=1)) / 16).astype(real), "sw"),
        numpy_helper.from_array(normal(40, seed=2).astype(real), "b"),
    ]
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "sx", "zero"], ["bytes"]),
        helper.make_node("DequantizeLinear", ["bytes", "sx", "zero"], ["rounded"]),
        helper.make_node("DequantizeLinear", ["w", "sw"], ["real"], axis=0 if turned else 1),
        *([helper.make_node("Transpose", ["real"], ["t"], perm=[1, 0])] if turned else []),
        helper.make_node("MatMul", ["rounded", "t" if turned else "real"], ["p"]),
        helper.make_node("Add", ["p", "b"], ["sum"]),
        helper.make_node("Relu", ["sum"], ["y"]),
    ]
    x, y = (
        helper.make_tensor_value_info(name, dtype, [rows, n]) for name, n in (("x", 48), ("y", 40))
    )
    graph = helper.make_graph(nodes, "g", [x], [y], tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


@pytest.mark.parametrize(
    ("rows", "real", "weights", "turned"),
    [
        ("n", np.float32, ml_dtypes.float8_e4m3fn, True),
        (20, np.float16, ml_dtypes.float8_e5m2, True),
        (1, np.float32, ml_dtypes.float8_e4m3fn, False),
    ],
)
def test_results(rows: int | str, real: type, weights: type, turned: bool, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    onnx.save(quantized(rows, real, weights, turned), path)
    product = "gemv" if rows == 1 else "mma"
    assert networks.lowered(path, arch=ADA)[2] == ["elementwise", product]
    counts = (3, 40) if rows == "n" else (rows,)
    given = [{"x": normal(count, 48, seed=3).astype(real)} for count in counts]
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    for inputs, got in zip(given, networks.run_each(path, given, arch=ADA)):
        (expected,) = session.run(None, inputs)
        wrong = 1e-2 if real is np.float16 else 1e-4
        np.testing.assert_allclose(got["y"], expected, rtol=wrong, atol=wrong)


def test_machines_without_such_instructions_multiply_numbers(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    onnx.save(quantized(20, np.float32, ml_dtypes.float8_e4m3fn, True), path)
    assert "mma" not in networks.lowered(path, arch=from_name("sm_80"))[2]
