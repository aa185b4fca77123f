"""Whole networks: compiled, run and compared with ONNX Runtime, with fixed and with free sizes.

Each runs in a process of its own: code that is wrong may end the process it runs in.
These are the small ones of the zoo; tools.zoo does the same with all of them.
"""

from __future__ import annotations

import pytest

from tools.zoo.runner import Row, run_case

pytest.importorskip("onnxruntime", reason="the reference; pip install 'tvmext[verify]'")

LIMIT = 180.0  # seconds
STATIC = (
    "bilstm.legacy.dyn",
    "mobilenet_v2.legacy.dyn",
    "vtc_efficientvit_attention",
    "vtc_gemma2_layer_decode_small",
    "vtc_llama3_layer_decode_slice_small",
    "vtc_llama3_layer_decode_small",
    "vtc_shufflenet_unit",
    "vtc_shufflenet_unit_s2",
    "vtc_yolo11_c3k2",
)
DYNAMIC = (
    "bert_fused.legacy.dyn",
    "bilstm.legacy.dyn",
    "llama_tiny.dynamo.dyn",
    "mobilenet_v2.dynamo.dyn",
    "t5_encoder.dynamo.dyn",
    "unet.dynamo.dyn",
)


@pytest.mark.parametrize("network", STATIC)
def test_with_fixed_sizes(network: str) -> None:
    assert_right(run_case(network, "static", LIMIT), sizes=1)


@pytest.mark.parametrize("network", DYNAMIC)
def test_with_free_sizes(network: str) -> None:
    """Compiled once, right at three sizes."""
    assert_right(run_case(network, "dynamic", LIMIT), sizes=3)


def assert_right(row: Row, sizes: int) -> None:
    assert row["exit_code"] == 0, row.get("error") or row.get("detail")
    assert row["sizes"] == sizes
