"""Matrix products: weights known at compile time, epilogues, and both operands at run time."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from .case import Case, Graph, node, random, weight

# Rows M by (N, K). Transformer widths, as BERT-base, ViT-S, GPT-2 and TinyLlama have them.
TRANSFORMER = {
    (768, 768): (1, 2, 5, 8, 16, 17, 64, 100, 128, 197, 512),
    (3072, 768): (1, 5, 16, 128, 197, 512, 2048),
    (768, 3072): (1, 5, 16, 128, 197, 512, 2048),
    (384, 384): (1, 49, 197, 1024),
    (1536, 384): (197, 1500),
    (2048, 2048): (1, 7, 32, 128),
    (5632, 2048): (1, 7, 32),
    (2048, 5632): (1, 7, 32),
    (50257, 768): (1, 5),
}
CLASSIFIERS = ((1, 1000, 2048), (1, 1000, 1280), (8, 1000, 2048), (64, 10, 512))
SQUARES = (64, 128, 256, 384, 512, 768, 1024)
ODD = (
    (3, 7, 5),
    (13, 129, 65),
    (31, 33, 37),
    (127, 255, 129),
    (197, 577, 385),
    (257, 1021, 509),
    (1023, 511, 257),
    (2047, 63, 771),
    (2048, 64, 64),
    (9, 2049, 4097),
)
BIASED = ((1, 768, 768), (128, 768, 768), (197, 1536, 384))
# batch, M, N, K: scores and weighted values of attention, and a decoder's single query.
BATCHED = (
    (12, 128, 128, 64),
    (12, 128, 64, 128),
    (6, 197, 197, 64),
    (6, 197, 64, 197),
    (12, 1, 512, 64),
    (12, 1, 64, 512),
    (64, 49, 49, 32),
)


def cases() -> list[Case]:
    """Names are gemm/MxNxK; "+" says what follows the product, "bmm" has a batch in front."""
    shapes = [(m, n, k) for (n, k), rows in TRANSFORMER.items() for m in rows]
    shapes += [*CLASSIFIERS, *((size, size, size) for size in SQUARES), *ODD]
    found = [_case(m, n, k, "") for m, n, k in shapes]
    found += [_case(m, n, k, end) for m, n, k in BIASED for end in ("bias", "gelu", "residual")]
    found += [_batched(*shape, transposed) for shape in BATCHED for transposed in (False, True)]
    return found


def _case(m: int, n: int, k: int, epilogue: str) -> Case:
    return Case(
        f"gemm/{m}x{n}x{k}" + (f"+{epilogue}" if epilogue else ""),
        partial(_graph, m, n, k, epilogue),
        flops=2.0 * m * n * k,
        torch=partial(_torch, epilogue),
    )


def _graph(m: int, n: int, k: int, epilogue: str) -> Graph:
    inputs = {"x": random(m, k)}
    weights = {"w": weight(k, n, fan_in=k)}
    nodes = [node("MatMul", "x w", "product")]
    if epilogue:
        weights["b"] = random(n, seed=2)
        nodes.append(node("Add", "product b", "biased"))
    if epilogue == "gelu":
        weights |= {"root2": random(1, scale=0) + 2**0.5, "one": random(1, scale=0) + 1}
        weights["half"] = random(1, scale=0) + 0.5
        nodes += [
            node("Div", "biased root2", "scaled"),
            node("Erf", "scaled", "erf"),
            node("Add", "erf one", "shifted"),
            node("Mul", "biased shifted", "doubled"),
            node("Mul", "doubled half", "gelu"),
        ]
    if epilogue == "residual":
        inputs["r"] = random(m, n, seed=3)
        nodes.append(node("Add", "biased r", "sum"))
    return Graph(nodes, inputs, nodes[-1].output[0], weights)


def _torch(epilogue: str, torch: Any, t: Any) -> Callable[[], object]:
    """oneDNN's inner product, its weight laid out beforehand as inductor does when it compiles."""
    onednn = torch.ops.mkldnn
    x, b = t["x"], t.get("b")
    packed = onednn._reorder_linear_weight(t["w"].T.contiguous(), x.shape[0])

    def linear() -> Any:
        return onednn._linear_pointwise(x, packed, b, "none", [], "")

    if epilogue == "gelu":
        return lambda: onednn._linear_pointwise(x, packed, b, "gelu", [], "none")
    if epilogue == "residual":
        return lambda: linear() + t["r"]
    return linear


def _batched(batch: int, m: int, n: int, k: int, transposed: bool) -> Case:
    return Case(
        f"bmm/{batch}x{m}x{n}x{k}" + ("t" if transposed else ""),
        partial(_batched_graph, batch, m, n, k, transposed),
        flops=2.0 * batch * m * n * k,
        torch=partial(_batched_torch, transposed),
    )


def _batched_graph(batch: int, m: int, n: int, k: int, transposed: bool) -> Graph:
    """Transposed: the second operand arrives as [batch, N, K], as the keys of attention do."""
    b = random(1, batch, *((n, k) if transposed else (k, n)), seed=2)
    inputs = {"a": random(1, batch, m, k), "b": b}
    if not transposed:
        return Graph([node("MatMul", "a b", "c")], inputs, "c", {})
    nodes = [node("Transpose", "b", "bt", perm=[0, 1, 3, 2]), node("MatMul", "a bt", "c")]
    return Graph(nodes, inputs, "c", {})


def _batched_torch(transposed: bool, torch: Any, t: Any) -> Callable[[], object]:
    b = t["b"].transpose(2, 3) if transposed else t["b"]
    return lambda: torch.matmul(t["a"], b)
