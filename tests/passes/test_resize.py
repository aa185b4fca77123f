"""Images made larger by whole numbers, against ONNX Runtime; interpolation stays apart."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest
import tvm
from onnx import helper
from tvm import relax, tirx
from tvm.relax import op, transform

from tests.passes import modules
from tests.passes.modules import build, random
from tvmext.passes.legalize import LEGALIZE
from tvmext.passes.resize import REPEATING


def nearest(x: np.ndarray, factors: tuple[int, int], coordinates: str, rounding: str) -> np.ndarray:
    """What ONNX Runtime makes of an NCHW image."""
    attributes = {"coordinate_transformation_mode": coordinates, "nearest_mode": rounding}
    node = helper.make_node("Resize", ["x", "", "s"], ["y"], mode="nearest", **attributes)
    image = [helper.make_tensor_value_info("x", 1, x.shape)]
    result = [helper.make_tensor_value_info("y", 1, None)]
    scales = [helper.make_tensor("s", 1, [4], [1, 1, *factors])]
    graph = helper.make_graph([node], "g", image, result, scales)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    return session.run(None, {"x": x})[0]


@pytest.mark.parametrize("symbolic", [False, True])
@pytest.mark.parametrize("coordinates, rounding", sorted(REPEATING - {("half_pixel", "round")}))
def test_whole_numbers_need_no_coordinates(coordinates: str, rounding: str, symbolic: bool) -> None:
    for h, w in ((2, 3), (4, 5)):
        x = random(1, 2, 6, 7)
        height, width = (tirx.Var(d, "int64") if symbolic else n for d, n in zip("hw", (6, 7)))
        size = relax.ShapeExpr([height * tirx.const(h, "int64"), width * tirx.const(w, "int64")])
        mod = build(
            [("x", [1, 2, height, width], "float32")],
            lambda _, x, size=size: op.image.resize2d(
                x,
                size,
                layout="NCHW",
                method="nearest_neighbor",
                coordinate_transformation_mode=coordinates,
                rounding_method=rounding,
            ),
        )
        lowered = transform.LegalizeOps(LEGALIZE)(mod)
        assert "ceil" not in lowered.script()
        (result,) = modules.run(lowered, x)
        np.testing.assert_array_equal(result, nearest(x, (h, w), coordinates, rounding))


def test_interpolation_takes_no_producer_in() -> None:
    mod = build(
        [("x", [1, 5, 5, 8], "float32")],
        lambda _, x: op.nn.relu(
            op.image.resize2d(op.exp(x), (9, 9), layout="NHWC", method="linear")
        ),
    )
    for step in (
        transform.LegalizeOps(LEGALIZE),
        transform.AnnotateTIROpPattern(),
        transform.FuseOps(),
        transform.FuseTIR(),
    ):
        mod = step(mod)
    kernels = [f for f in mod.functions.values() if isinstance(f, tvm.tirx.PrimFunc)]
    assert len(kernels) == 2
