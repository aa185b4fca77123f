"""Scaled dot-product attention, written out as exporters do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from .case import Case, Graph, node, random

CONTRIB = (("com.microsoft", 1),)


@dataclass(frozen=True)
class Attention:
    """Queries are [batch, heads, queries, depth]; keys and values may have fewer heads."""

    name: str
    heads: int
    queries: int
    keys: int
    depth: int
    batch: int = 1
    kv_heads: int = 0
    mask: str = ""
    """"causal": constant in the model; "padding": an input, [batch, 1, 1, keys]."""

    @property
    def flops(self) -> float:
        """Of both products; half of the scores of a causal one are needed."""
        part = 0.5 if self.mask == "causal" else 1.0
        return 4.0 * part * self.batch * self.heads * self.queries * self.keys * self.depth


SHAPES = (
    Attention("bert,128", 12, 128, 128, 64),
    Attention("bert,384", 12, 384, 384, 64),
    Attention("bert,128,padding", 12, 128, 128, 64, batch=4, mask="padding"),
    Attention("vit_small,197", 6, 197, 197, 64),
    Attention("swin,windows", 3, 49, 49, 32, batch=64),
    Attention("clip_text,77,causal", 8, 77, 77, 64, mask="causal"),
    Attention("gpt2,512,causal", 12, 512, 512, 64, mask="causal"),
    Attention("gpt2,2048,causal", 12, 2048, 2048, 64, mask="causal"),
    Attention("llama,256,gqa", 32, 256, 256, 64, kv_heads=4, mask="causal"),
    Attention("llama,decode,gqa", 32, 1, 1024, 64, kv_heads=4),
    Attention("whisper,cross", 6, 64, 1500, 64),
    Attention("whisper,1500", 6, 1500, 1500, 64),
    Attention("diffusion,cross", 8, 4096, 77, 40),
)


def cases() -> list[Case]:
    """The plain graph for us; for ONNX Runtime also its own two attention operators."""
    return [
        Case(
            f"attention/{shape.name}",
            partial(_plain, shape),
            flops=shape.flops,
            rivals=(partial(_standard, shape), *_contrib_forms(shape)),
            torch=partial(_torch, shape),
        )
        for shape in SHAPES
    ]


def _inputs(a: Attention) -> dict[str, np.ndarray]:
    kv_heads = a.kv_heads or a.heads
    inputs = {
        "q": random(a.batch, a.heads, a.queries, a.depth),
        "k": random(a.batch, kv_heads, a.keys, a.depth, seed=1),
        "v": random(a.batch, kv_heads, a.keys, a.depth, seed=2),
    }
    if a.mask == "padding":
        lengths = np.linspace(a.keys, a.keys // 2, a.batch)[:, None, None, None]
        hidden = np.arange(a.keys)[None, None, None, :] >= lengths
        inputs["mask"] = np.where(hidden, np.float32(-1e9), np.float32(0)).astype(np.float32)
    return inputs


def _plain(a: Attention) -> Graph:
    """MatMul, scale, mask, Softmax, MatMul; shared key heads are repeated as transformers does."""
    weights = {"scale": np.array(a.depth**-0.5, np.float32)}
    nodes = []
    k, v = "k", "v"
    if a.kv_heads:
        times = a.heads // a.kv_heads
        weights["axis"] = np.array([2], np.int64)
        weights["wide"] = np.array([a.batch, a.kv_heads, times, a.keys, a.depth], np.int64)
        weights["flat"] = np.array([a.batch, a.heads, a.keys, a.depth], np.int64)
        for name in "kv":
            nodes += [
                node("Unsqueeze", f"{name} axis", f"{name}1"),
                node("Expand", f"{name}1 wide", f"{name}2"),
                node("Reshape", f"{name}2 flat", f"{name}3"),
            ]
        k, v = "k3", "v3"
    nodes += [
        node("Transpose", k, "kt", perm=[0, 1, 3, 2]),
        node("MatMul", "q kt", "raw"),
        node("Mul", "raw scale", "scores"),
    ]
    scores = "scores"
    if a.mask:
        nodes.append(node("Add", "scores mask", "masked"))
        scores = "masked"
    if a.mask == "causal":
        lowest = np.float32(np.finfo(np.float32).min)
        weights["mask"] = np.triu(np.full((1, 1, a.queries, a.keys), lowest, np.float32), 1)
    nodes += [node("Softmax", scores, "p", axis=-1), node("MatMul", f"p {v}", "y")]
    return Graph(nodes, _inputs(a), "y", weights)


def _standard(a: Attention) -> Graph:
    """ai.onnx Attention (opset 23); its mask has a row for every query."""
    attention = node("Attention", "q k v", "y", is_causal=int(a.mask == "causal"))
    if a.mask != "padding":
        return Graph([attention], _inputs(a), "y", {}, opset=23)
    rows = np.array([a.batch, 1, a.queries, a.keys], np.int64)
    nodes = [node("Expand", "mask rows", "m"), node("Attention", "q k v m", "y")]
    return Graph(nodes, _inputs(a), "y", {"rows": rows}, opset=23)


def _contrib_forms(a: Attention) -> tuple[Callable[[], Graph], ...]:
    return () if a.kv_heads or a.mask == "padding" else (partial(_contrib, a),)


def _contrib(a: Attention) -> Graph:
    """com.microsoft MultiHeadAttention, with the layout changes around it that it asks for."""
    width = a.heads * a.depth
    weights = {
        "packed": np.array([a.batch, -1, width], np.int64),
        "split": np.array([a.batch, a.queries, a.heads, a.depth], np.int64),
    }
    nodes = []
    for name in "qkv":
        nodes += [
            node("Transpose", name, f"{name}1", perm=[0, 2, 1, 3]),
            node("Reshape", f"{name}1 packed", f"{name}2"),
        ]
    attributes = {"num_heads": a.heads, "unidirectional": int(a.mask == "causal")}
    nodes += [
        node("MultiHeadAttention", "q2 k2 v2", "y1", domain="com.microsoft", **attributes),
        node("Reshape", "y1 split", "y2"),
        node("Transpose", "y2", "y", perm=[0, 2, 1, 3]),
    ]
    return Graph(nodes, _inputs(a), "y", weights, domains=CONTRIB)


def _torch(a: Attention, torch: Any, t: Any) -> Callable[[], object]:
    run = partial(
        torch.nn.functional.scaled_dot_product_attention,
        attn_mask=t["mask"] if a.mask == "padding" else None,
        is_causal=a.mask == "causal",
        enable_gqa=bool(a.kv_heads),
    )
    return lambda: run(t["q"], t["k"], t["v"])
