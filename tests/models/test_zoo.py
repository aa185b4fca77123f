"""Whole networks: compiled, run and compared with ONNX Runtime, with fixed and with free sizes.

These are the small ones of the zoo; tools/zoo.py does the same with all of them.
"""

from __future__ import annotations

import pytest

from tools.zoo_case import measure

pytest.importorskip("onnxruntime", reason="the reference; pip install 'tvmext[verify]'")

STATIC = (
    "bilstm.legacy.dyn",
    "efficientnet_b0.dynamo.dyn",
    "mamba.dynamo.static",
    "mobilenet_v2.legacy.dyn",
    "segformer_b0.legacy.dyn",
    "vtc_efficientvit_attention",
    "vtc_gemma2_layer_decode_small",
    "vtc_llama3_layer_decode_slice_small",
    "vtc_llama3_layer_decode_small",
    "vtc_shufflenet_unit",
    "vtc_shufflenet_unit_s2",
    "vtc_yolo11_c3k2",
)
DYNAMIC = (
    "gpt2.dynamo.dyn",
    "llama_tiny.dynamo.dyn",
    "llama_tiny.legacy.dyn",
    "mobilenet_v2.dynamo.dyn",
    "qwen2_moe.dynamo.dyn",
    "t5_encoder.legacy.dyn",
    "unet.dynamo.dyn",
    "unet.legacy.dyn",
)


@pytest.mark.parametrize("network", STATIC)
def test_with_fixed_sizes(network: str) -> None:
    result = measure(network, "static", timing=False)
    assert result["passed"], result["detail"]
    assert result["sizes"] == 1


@pytest.mark.parametrize("network", DYNAMIC)
def test_with_free_sizes(network: str) -> None:
    """Compiled once, right at three sizes."""
    result = measure(network, "dynamic", timing=False)
    assert result["passed"], result["detail"]
    assert result["sizes"] == 3
