"""Networks compiled for a GPU: run in the emulator, compared with ONNX Runtime."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from tests.zoo import light
from tools.zoo.case import ZOO
from tvmext.options import Options

from . import networks


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
