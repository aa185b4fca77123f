"""Products with weights of 2, 4 and 8 bits in blocks: that they stay packed, and what they are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

from tvmext import api
from tvmext.build import CompileRequest
from tvmext.onnx_backend import InProcessBackend
from tvmext.options import Options

ROWS = (0, 1, 3, 4, 5, 17, 128)


class Optimised(InProcessBackend):
    options = Options()


def product(
    rows: int | str, depth: int, columns: int, block: int = 32, bits: int = 4, zeros: str = ""
) -> ModelProto:
    """MatMulNBits; `zeros`: "" for the middle, "one" for the same everywhere, "many"."""
    rng = np.random.default_rng(columns)
    blocks = -(-depth // block)
    size = block * bits // 8
    weights = {
        "w": rng.integers(0, 256, (columns, blocks, size), np.uint8),
        "s": rng.uniform(0.01, 0.02, columns * blocks).astype(np.float32),
    }
    if zeros:
        shape = (columns, -(-blocks * bits // 8))
        weights["z"] = rng.integers(0, 256, shape, np.uint8)
        if zeros == "one":
            weights["z"][:] = 0x88
    node = helper.make_node(
        "MatMulNBits", ["x", *weights], ["y"], domain="com.microsoft", K=depth, N=columns,
        bits=bits, block_size=block,
    )  # fmt: skip
    graph = helper.make_graph(
        [node],
        "g",
        [helper.make_tensor_value_info("x", 1, [1, rows, depth])],
        [helper.make_tensor_value_info("y", 1, [1, rows, columns])],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    imports = [helper.make_opsetid("", 20), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=imports, ir_version=10)


def dequantized(axis: int, dtype: int, zeros: bool) -> ModelProto:
    """A product with DequantizeLinear of integers in blocks of 16 along `axis`, the sum's."""
    rng = np.random.default_rng(dtype)
    shape, blocks = [[48, 70], [3, 70]] if axis == 0 else [[70, 48], [70, 3]]
    low, high = {TensorProto.INT4: (-8, 8), TensorProto.UINT4: (0, 16)}.get(dtype, (-128, 128))
    raw = helper.make_tensor("w", dtype, shape, rng.integers(low, high, shape).ravel())
    scale = numpy_helper.from_array(rng.uniform(0.01, 0.02, blocks).astype(np.float32), "s")
    zero = helper.make_tensor("z", dtype, blocks, rng.integers(low, high, blocks).ravel())
    real = helper.make_node(
        "DequantizeLinear", ["w", "s", *["z"] * zeros], ["r"], axis=axis, block_size=16
    )
    turn = helper.make_node("Transpose", ["r"], ["t"], perm=[1, 0])
    matmul = helper.make_node("MatMul", ["x", "t" if axis else "r"], ["y"])
    graph = helper.make_graph(
        [real, turn, matmul] if axis else [real, matmul],
        "g",
        [helper.make_tensor_value_info("x", 1, ["n", 48])],
        [helper.make_tensor_value_info("y", 1, ["n", 70])],
        [raw, scale, *[zero] * zeros],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


def rules(model: ModelProto, rows: tuple[int, ...], tolerance: float = 1e-4) -> set[str]:
    """The rules of the kernels of the model, whose results are those of ONNX Runtime."""
    prepared = Optimised.prepare(model)
    plain = onnxruntime.SessionOptions()  # optimized, it rounds the data of such products
    plain.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), plain, providers=["CPUExecutionProvider"]
    )
    for count in rows:
        dims = [d.dim_value or count for d in model.graph.input[0].type.tensor_type.shape.dim]
        x = np.random.default_rng(1).standard_normal(dims, np.float32)
        (expected,) = session.run(None, {"x": x})
        np.testing.assert_allclose(prepared.run([x]).y, expected, rtol=tolerance, atol=tolerance)
    return {one["rule"] for one in prepared._compiled[()].metadata.decisions.values()}


@pytest.mark.parametrize(
    "arguments",
    [
        (0, 64, 128),
        (1, 64, 128),
        (1, 96, 70),  # the last panel is not whole
        (4, 64, 64, 64, 8),
        (3, 128, 64, 128, 2, "many"),
        (2, 64, 130, 16, 4, "many"),
        (5, 128, 64, 64, 4, "one"),
        (17, 64, 70, 32, 2),
        (128, 64, 70, 16, 8, "many"),
    ],
    ids=str,
)
def test_known_rows(arguments: tuple) -> None:
    kept = {"blocks"} if arguments[0] else set()  # without elements it is a constant
    assert rules(product(*arguments), arguments[:1], 1e-3) == kept


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize(("block", "zeros"), [(32, ""), (128, "many")])
def test_any_rows(bits: int, block: int, zeros: str) -> None:
    assert rules(product("n", 256, 70, block, bits, zeros), ROWS, 1e-3) == {"blocks"}


@pytest.mark.parametrize("zeros", ["", "many"])
def test_the_last_block_is_not_whole(zeros: str) -> None:
    assert "blocks" in rules(product("n", 72, 70, 32, 4, zeros), (1, 17))


@pytest.mark.parametrize("scale", [np.inf, -np.inf, np.nan, 2e36])
def test_a_weight_that_is_not_finite_is_not_packed(scale: float) -> None:
    """A sum over a block is one of infinities of both signs, and not infinite as a whole."""
    model = product(3, 64, 70)
    (scales,) = [tensor for tensor in model.graph.initializer if tensor.name == "s"]
    values = numpy_helper.to_array(scales).copy()
    values[5:140:7] = scale
    scales.CopyFrom(numpy_helper.from_array(values, "s"))
    with np.errstate(all="ignore"):
        assert "blocks" not in rules(model, (3,))


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("dtype", [TensorProto.INT4, TensorProto.UINT4, TensorProto.INT8])
def test_dequantize_linear(axis: int, dtype: int) -> None:
    assert rules(dequantized(axis, dtype, zeros=axis == 0), (1, 17), 1e-3) == {"blocks"}


def test_one_column_is_no_matrix_product() -> None:
    assert "blocks" not in rules(product(1, 64, 1, 16), (1,))


@pytest.mark.parametrize(("bits", "share"), [(2, 0.11), (4, 0.17), (8, 0.30)])
def test_a_weight_takes_its_bits_in_the_library(bits: int, share: float, tmp_path: Path) -> None:
    """And its scales, and a little code."""
    depth, columns = 1024, 1024
    model, output = tmp_path / "m.onnx", tmp_path / "m.so"
    model.write_bytes(product("n", depth, columns, 32, bits).SerializeToString())
    request = CompileRequest(
        model=str(model), output=str(output), target="llvm", dims={}, options=Options(),
        trust=False, model_format="onnx", name="model",
    )  # fmt: skip
    api.compile_here(request, lambda *_: None)
    assert output.stat().st_size < share * 4 * depth * columns + 300_000
