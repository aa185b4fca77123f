"""Every network of the zoo on a GPU, against ONNX Runtime on the CPU; `python -m tools.gpu all`."""

from __future__ import annotations

import os

import pytest

from tools.gpu.case import HERE
from tools.gpu.checks import ON_GPU
from tools.zoo.case import wanted
from tools.zoo.runner import run_module

pytestmark = pytest.mark.skipif(
    not os.environ.get(ON_GPU), reason=f"needs an NVIDIA GPU, and {ON_GPU}=1"
)


@pytest.mark.parametrize(("network", "mode"), wanted("*"))
def test_network(network: str, mode: str) -> None:
    row = run_module(["tools.gpu.case", network, mode, HERE], 600)
    assert row["exit_code"] == 0, row.get("error") or row.get("detail")
