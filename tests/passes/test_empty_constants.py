"""Constants without elements: TVM could not load the library that has one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx import helper, save_model

import tvmext


@pytest.mark.parametrize("scale", [0.0, 0.2])
def test_an_image_without_rows(scale: float, tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Resize", ["x", "", "s"], ["y"], mode="nearest"),
        helper.make_node("Concat", ["y", "x"], ["z"], axis=2),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", 1, [1, 1, 3, 2])],
        [helper.make_tensor_value_info(name, 1, None) for name in "yz"],
        [helper.make_tensor("s", 1, [4], [1, 1, scale, 1])],
    )
    path = tmp_path / "m.onnx"
    save_model(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)]), path)
    x = np.arange(6, dtype="float32").reshape(1, 1, 3, 2)
    results = tvmext.compile(path).run(x)
    assert results["y"].shape == (1, 1, 0, 2)
    np.testing.assert_array_equal(results["z"], x)
