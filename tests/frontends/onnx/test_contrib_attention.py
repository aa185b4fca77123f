"""Attention operators of com.microsoft against ONNX Runtime, with fixed sizes and free dims."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest
from onnx import helper, numpy_helper

import tvmext
from tvmext.onnx_backend import InProcessBackend

RNG = np.random.default_rng(0)


def floats(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


def ints(*values) -> np.ndarray:
    return np.array(values, np.int32)


X = floats(2, 5, 16)
W, BIAS = floats(16, 48), floats(48)
BSH = "batch seq 16"
PAST = (floats(2, 2, 4, 3, 4), "2 batch 4 past 4")
PADDING = RNG.integers(0, 2, (2, 5)).astype(np.int32)
KEYS = floats(2, 7, 16)
BNSH = (floats(2, 4, 3, 4), "batch 4 past 4")
TURNS = [np.cos(floats(32, 2)), np.sin(floats(32, 2))]
GROUPS = {"num_heads": 4, "kv_num_heads": 2}
QUERY, KV = (floats(2, 5, 64), "batch seq 64"), (floats(2, 5, 32), "batch seq 32")
WIDE_TURNS = [np.cos(floats(32, 8)), np.sin(floats(32, 8))]


def decode(past: int, *ends: int, **attributes):
    """One step behind caches of different lengths."""
    cache = (floats(2, 2, past, 16), "batch 2 past 16")
    one = (floats(2, 1, 32), "batch 1 32")
    data = [(floats(2, 1, 64), "batch 1 64"), one, one, cache, cache, (ints(*ends), "batch")]
    return [*data, np.int32(max(ends) + 1), *WIDE_TURNS], GROUPS | attributes, 3


CASES = {
    "Attention": ([(X, BSH), W, BIAS], {"num_heads": 4}, 1),
    "Attention, causal, padded": (
        [(X, BSH), W, BIAS, (PADDING | ints(1, 0, 0, 0, 0), "batch seq")],
        {"num_heads": 4, "unidirectional": 1}, 1,
    ),
    "Attention, lengths": ([(X, BSH), W, BIAS, (ints(5, 3), "batch")], {"num_heads": 4}, 1),
    "Attention, past": (
        [(X, BSH), W, BIAS, None, PAST], {"num_heads": 4, "unidirectional": 1, "scale": 0.7}, 2,
    ),
    "Attention, bias, own sizes": (
        [(X, BSH), floats(16, 32), floats(32), None, None, (floats(1, 4, 5, 5), "1 4 seq seq")],
        {"num_heads": 4, "qkv_hidden_sizes": [8, 8, 16]}, 1,
    ),
    "QAttention": (
        [(RNG.integers(0, 256, (2, 5, 16), np.uint8), BSH),
         RNG.integers(0, 256, (16, 48), np.uint8), BIAS,
         np.float32(0.02), np.float32(0.01), None, np.uint8(120), np.uint8(130)],
        {"num_heads": 4}, 1,
    ),
    "MultiHeadAttention": (
        [(X, BSH), (KEYS, "batch keys 16"), (floats(2, 7, 8), "batch keys 8"), floats(40), None,
         (floats(1, 1, 5, 7), "1 1 seq keys")],
        {"num_heads": 4}, 1,
    ),
    "MultiHeadAttention, past, padded": (
        [(X, BSH), (floats(2, 5, 16), BSH), (floats(2, 5, 16), BSH), BIAS,
         (np.hstack([ints([1, 1, 1], [0, 1, 1]), PADDING]), "batch total"), None, BNSH, BNSH],
        {"num_heads": 4, "unidirectional": 1}, 3,
    ),
    "MultiHeadAttention, heads of keys": (
        [(X, BSH), BNSH, BNSH, None, (ints([1, 1, 0], [1, 0, 0]), "batch past")],
        {"num_heads": 4}, 1,
    ),
    "RotaryEmbedding": (
        [(X, BSH), (np.arange(10).reshape(2, 5) + 3, "batch seq"), *TURNS], {"interleaved": 1}, 1,
    ),
    "RotaryEmbedding, a part, from a position": (
        [(floats(2, 4, 5, 6), "batch 4 seq 6"), (np.int64([7]), "1"), *TURNS],
        {"num_heads": 4, "rotary_embedding_dim": 4}, 1,
    ),
    "GroupQueryAttention, prompt": (
        [QUERY, KV, KV, None, None, (ints(4, 4), "batch"), np.int32(5)], GROUPS, 3,
    ),
    "GroupQueryAttention, packed": (
        [(floats(2, 5, 128), "batch seq 128"), None, None, None, None, (ints(4, 4), "batch"),
         np.int32(5), *WIDE_TURNS],
        GROUPS | {"do_rotary": 1, "local_window_size": 2, "softcap": 3.0}, 3,
    ),
    "GroupQueryAttention, one step": decode(3, 3, 3, do_rotary=1, scale=0.9),
    "GroupQueryAttention, own lengths": decode(6, 5, 2, do_rotary=1, rotary_interleaved=1),
    "GroupQueryAttention, sink": decode(3, 3, 3, smooth_softmax=1),
}  # fmt: skip


def model(name: str, free: bool):
    op, (arrays, attributes, outputs) = name.split(",")[0], CASES[name]
    names = ["" if given is None else f"x{k}" for k, given in enumerate(arrays)]
    results = [f"y{k}" for k in range(outputs)]
    node = helper.make_node(op, names, results, domain="com.microsoft", **attributes)
    inputs, weights, feeds = [], [], {}
    for key, given in zip(names, arrays):
        array, dims = given if isinstance(given, tuple) else (given, None)
        if dims:
            kind = helper.np_dtype_to_tensor_dtype(array.dtype)
            sizes = [d if free and d.isalpha() else n for d, n in zip(dims.split(), array.shape)]
            inputs.append(helper.make_tensor_value_info(key, kind, sizes))
            feeds[key] = array
        elif key:
            weights.append(numpy_helper.from_array(np.asarray(array), key))
    outs = [helper.make_empty_tensor_value_info(key) for key in results]
    graph = helper.make_graph([node], "attention", inputs, outs, weights)
    imports = [helper.make_opsetid("", 18), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=imports, ir_version=8), feeds


FIXED = ("Attention", "QAttention", "GroupQueryAttention, one step")


@pytest.mark.parametrize("name, free", [*((n, True) for n in CASES), *((n, False) for n in FIXED)])
def test_against_onnx_runtime(name: str, free: bool) -> None:
    proto, feeds = model(name, free)
    wants = onnxruntime.InferenceSession(proto.SerializeToString()).run(None, feeds)
    for got, want in zip(InProcessBackend.run_model(proto, list(feeds.values())), wants):
        assert got.shape == want.shape
        if "own lengths" in name and want.ndim == 4:  # behind a batch's end is anything
            got, want = got[1, :, :3], want[1, :, :3]
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)


def test_packed_heads() -> None:
    """ONNX Runtime has them for GPUs only: the same as operands of their own."""
    packed, outputs = floats(2, 5, 4, 3, 4), [helper.make_empty_tensor_value_info("y")]
    node = helper.make_node("MultiHeadAttention", ["x"], ["y"], domain="com.microsoft", num_heads=4)
    given = [helper.make_tensor_value_info("x", 1, ["batch", "seq", 4, 3, 4])]
    graph = helper.make_graph([node], "packed", given, outputs)
    imports = [helper.make_opsetid("", 18), helper.make_opsetid("com.microsoft", 1)]
    proto = helper.make_model(graph, opset_imports=imports, ir_version=8)
    (got,) = InProcessBackend.run_model(proto, [packed])
    q, k, v = (packed[:, :, :, part].transpose(0, 2, 1, 3) for part in range(3))
    scores = q @ k.swapaxes(2, 3) / 2
    weights = np.exp(scores) / np.exp(scores).sum(-1, keepdims=True)
    want = (weights @ v).transpose(0, 2, 1, 3).reshape(2, 5, 16)
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)


def test_one_kernel() -> None:
    """A step of a decoder reads its cache where it is, each key for all heads that share it."""
    proto, _ = model("GroupQueryAttention, own lengths", free=True)
    kernels = [call.kernel for call in tvmext.compile(proto).metadata.calls]
    assert kernels[-1].startswith("attention") and not any("softmax" in name for name in kernels)
