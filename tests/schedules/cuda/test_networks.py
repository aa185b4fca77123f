"""Networks compiled for a GPU: run in the emulator, compared with ONNX Runtime."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from tests.zoo import light
from tools.zoo.case import ZOO

from . import networks


@pytest.mark.parametrize("name", ["vtc_shufflenet_unit", "qwen2_moe.legacy.dyn"])
def test_network(name: str, tmp_path: Path) -> None:
    model = light.load(ZOO / f"{name}.onnx")
    sizes = {"batch": 1, "seq": 5, "past": 2} if name.startswith("qwen") else {}
    inputs = light.make_inputs(model, **sizes)
    path = tmp_path / "model.onnx"
    light.save(model, path)
    got = networks.run(path, inputs)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    expected = session.run(list(got), inputs)
    for result, reference in zip(got.values(), expected):
        np.testing.assert_allclose(result, reference, rtol=1e-3, atol=1e-4)
