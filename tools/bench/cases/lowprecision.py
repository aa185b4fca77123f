"""Quantized products and convolutions, bytes in and bytes out, as QLinearMatMul and QLinearConv."""

from __future__ import annotations

from functools import partial

import numpy as np

from .case import Case, Graph, node
from .conv import MOBILENET, RESNET50, Layer

MATMULS = ((1, 768, 768), (1, 3072, 768), (16, 768, 768), (128, 768, 768), (512, 512, 512))
LAYERS = (*RESNET50[:5], *RESNET50[11:], *MOBILENET[1:4])


def cases() -> list[Case]:
    """Unsigned data, signed weights with a scale for each column; ONNX Runtime's fast case."""
    return [
        *(
            Case(f"int8/matmul:{m},{n},{k}", partial(_matmul, m, n, k), flops=2.0 * m * n * k)
            for m, n, k in MATMULS
        ),
        *(
            Case(
                f"int8/{layer.name.partition('/')[2]}",
                partial(_conv, layer),
                flops=layer.flops,
                interior=True,
            )
            for layer in LAYERS
        ),
    ]


def _drawn(dtype: str, *shape: int) -> np.ndarray:
    limits = np.iinfo(dtype)
    rng = np.random.default_rng([*shape])
    return rng.integers(limits.min + (dtype == "int8"), limits.max, shape, dtype, endpoint=True)


def _weights(weight: np.ndarray, columns: int, depth: int) -> dict[str, np.ndarray]:
    """Scales such that results fill the range of a byte."""
    spread = np.linspace(0.5, 1.0, columns, dtype=np.float32)
    return {
        "sx": np.array(0.02, np.float32),
        "zx": np.array(0, np.uint8),
        "w": weight,
        "sw": spread * np.float32(0.01),
        "zw": np.zeros(columns, np.int8),
        "sy": np.array(0.02 * depth**0.5, np.float32),
        "zy": np.array(128, np.uint8),
    }


def _matmul(m: int, n: int, k: int) -> Graph:
    weights = _weights(_drawn("int8", k, n), n, k)
    nodes = [node("QLinearMatMul", "x sx zx w sw zw sy zy", "y")]
    return Graph(nodes, {"x": _drawn("uint8", m, k)}, "y", weights, dtype="uint8")


def _conv(layer: Layer) -> Graph:
    shape = (layer.cout, layer.cin // layer.groups, layer.kernel, layer.kernel)
    weights = _weights(_drawn("int8", *shape), layer.cout, shape[1] * layer.kernel**2)
    weights["b"] = np.zeros(layer.cout, np.int32)
    conv = node(
        "QLinearConv",
        "x sx zx w sw zw sy zy b",
        "y",
        strides=[layer.stride] * 2,
        pads=[layer.padding] * 4,
        group=layer.groups,
    )
    return Graph(
        [conv], {"x": _drawn("uint8", 1, layer.cin, *layer.size)}, "y", weights, dtype="uint8"
    )
