"""Products of a few rows with weights of 4 bits: where they stay packed, and what they are."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest
from onnx import ModelProto, helper, numpy_helper

from tvmext.onnx_backend import InProcessBackend
from tvmext.options import Options


class Optimised(InProcessBackend):
    options = Options()


def product(
    rows: int | str, depth: int, columns: int, block: int = 32, bits: int = 4, zeros: str = ""
) -> ModelProto:
    """MatMulNBits; `zeros`: "" for the middle, "one" for the same everywhere, "many"."""
    rng = np.random.default_rng(columns)
    blocks = depth // block
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


def kernels(model: ModelProto, rows: int) -> list[str]:
    """The kernels of the model, whose result is that of ONNX Runtime."""
    prepared = Optimised.prepare(model)
    dims = [dim.dim_value or rows for dim in model.graph.input[0].type.tensor_type.shape.dim]
    x = np.random.default_rng(1).standard_normal(dims, np.float32)
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    (expected,) = session.run(None, {"x": x})
    np.testing.assert_allclose(prepared.run([x]).y, expected, rtol=1e-4, atol=1e-4)
    return [call.kernel for call in prepared._compiled[()].metadata.calls]


@pytest.mark.parametrize(
    "arguments",
    [
        (1, 64, 128),
        (1, 96, 70),  # the last panel is not whole
        (3, 64, 64),
        (1, 64, 1, 16),
        (1, 128, 64, 64, 4, "one"),
        (2, 64, 130, 16, 4, "many"),
    ],
    ids=str,
)
def test_a_few_rows_read_4_bits(arguments: tuple) -> None:
    assert kernels(product(*arguments), arguments[0]) == ["matmul_4_bits"]


@pytest.mark.parametrize(
    "arguments", [(5, 64, 64), (1, 64, 64, 32, 8), ("n", 64, 64)], ids=["rows", "bits", "any rows"]
)
def test_others_are_made_floats_before(arguments: tuple) -> None:
    assert "matmul_4_bits" not in kernels(product(*arguments), 2)
