"""Operators to measure: drawn from the zoo's weights, MikPoly's ranges, and at random.

A workload is plain data, {"kind": .., sizes ..}; `graph` makes an ONNX graph of it. What the
benchmarks measure (tools/bench/cases) is never drawn: figures there are of sizes nobody saw.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from ..bench.cases import attention, conv, gemm
from ..bench.cases.case import Graph, node, random

Spec = Mapping[str, Any]
ZOO = Path(__file__).parents[2] / "tests" / "zoo"
LEAST_FLOPS, MOST_FLOPS = 1e5, 1.5e9
MOST_ELEMENTS = 1 << 24
"""Larger ones take longer to measure and say little more; smaller ones are mostly their call."""

MIKPOLY = (
    # M, N, K ranges and how many of 1433 (MikPoly, ASPLOS 2024)
    ((2, 10752), (1, 48000), (128, 500000), 166),
    ((1, 256), (1, 256), (1, 256), 299),
    ((1, 256), (1, 256), (257, 65536), 218),
    ((1, 256), (257, 1024), (1, 65536), 232),
    ((1, 256), (1025, 65536), (1, 65536), 97),
    ((257, 1024), (1, 256), (1, 65536), 64),
    ((257, 1024), (257, 65536), (1, 65536), 87),
    ((1025, 8192), (1, 256), (1, 65536), 65),
    ((1025, 8192), (257, 8192), (1, 65536), 136),
    ((8193, 65536), (1, 8192), (1, 8192), 69),
)
MIKPOLY_CONV = (
    # window, range of the feature map: AlexNet, GoogLeNet, ResNet, VGG
    (11, (64, 640)), (5, (7, 79)), (3, (3, 39)), (7, (64, 640)), (1, (16, 160)), (3, (16, 160)),
    (1, (8, 80)), (3, (8, 80)), (1, (4, 40)), (3, (4, 40)), (1, (2, 20)), (3, (2, 20)),
    (3, (64, 640)), (3, (32, 320)),
)  # fmt: skip
EPILOGUES = ("", "bias", "bias", "gelu", "residual")
SHARES = {
    "gemm": 0.34, "bmm": 0.1, "conv": 0.28, "depthwise": 0.08, "attention": 0.08,
    "softmax": 0.04, "norm": 0.04, "reduce": 0.02, "map": 0.02,
}  # fmt: skip
"""Of the workloads of each kind, where nobody asks for some kinds alone."""


def draw(count: int, seed: int, kinds: Sequence[str] = ()) -> list[Spec]:
    """`count` different workloads, the same for a seed; `kinds` are in equal parts.

    Raises ValueError for a kind that is not there.
    """
    if unknown := set(kinds) - _DRAW.keys():
        raise ValueError(f"no kind {', '.join(sorted(unknown))}; there are {', '.join(_DRAW)}")
    rng = np.random.default_rng(seed)
    shares = dict.fromkeys(kinds, 1.0) or SHARES
    kinds, weights = list(shares), np.array(list(shares.values()))
    found: dict[str, Spec] = {}
    while len(found) < count:
        spec = _DRAW[str(rng.choice(kinds, p=weights / weights.sum()))](rng)
        if spec is None or not LEAST_FLOPS <= cost(spec) <= MOST_FLOPS:
            continue
        if key(spec) not in forbidden():
            found[key(spec)] = spec
    return list(found.values())


def key(spec: Spec) -> str:
    return json.dumps(spec, sort_keys=True)


def _log(rng: np.random.Generator, low: int, high: int) -> int:
    """A size between two, by its logarithm; often a round one."""
    size = round(np.exp(rng.uniform(np.log(low), np.log(high + 0.499))))
    if rng.random() < 0.5 and size > 16:
        unit = int(rng.choice([8, 16, 32, 64]))
        size = max(low, size // unit * unit)
    return min(max(size, low), high)


def _gemm(rng: np.random.Generator) -> Spec | None:
    source = rng.random()
    if source < 0.4:
        n, k = _zoo("matmul")[rng.integers(len(_zoo("matmul")))]
        m = _log(rng, 1, 2048)
    elif source < 0.75:
        counts = np.array([case[3] for case in MIKPOLY], float)
        case = MIKPOLY[rng.choice(len(MIKPOLY), p=counts / counts.sum())]
        m, n, k = (_log(rng, *size) for size in case[:3])
    else:
        m, n, k = (_log(rng, 1, 1500) for _ in range(3))
    if n * k > MOST_ELEMENTS // 2 or m * n > MOST_ELEMENTS or m * k > MOST_ELEMENTS:
        return None
    return {"kind": "gemm", "m": m, "n": n, "k": k, "epilogue": str(rng.choice(EPILOGUES))}


def _bmm(rng: np.random.Generator) -> Spec | None:
    b = int(rng.choice([1, 2, 3, 4, 6, 8, 12, 16, 32, 64]))
    m, n, k = (_log(rng, 1, 600) for _ in range(3))
    if rng.random() < 0.3:
        m = 1
    return {"kind": "bmm", "b": b, "m": m, "n": n, "k": k, "t": bool(rng.random() < 0.5)}


def _thin(rng: np.random.Generator) -> Spec | None:
    """A product of one row, few columns or a sum of few steps: rare, and hard to price."""
    spec = (_gemm if rng.random() < 0.6 else _bmm)(rng)
    dim, most = (("m", 1), ("n", 16), ("k", 32))[rng.integers(3)]
    return None if spec is None else {**spec, dim: _log(rng, 1, most)}


def _conv(rng: np.random.Generator) -> Spec | None:
    batch = 1 if rng.random() < 0.8 else int(2 ** rng.integers(1, 4))
    if rng.random() < 0.5:
        cin, cout, kernel, stride, groups = _zoo("conv")[rng.integers(len(_zoo("conv")))]
        size = _log(rng, 4, 160)
    else:
        kernel, edges = MIKPOLY_CONV[rng.integers(len(MIKPOLY_CONV))]
        size = _log(rng, max(edges[0], 2), min(edges[1], 256))
        cin, cout = _log(rng, 3, 768), _log(rng, 8, 768)
        stride = int(rng.choice([1, 1, 1, 2]))
        groups = 1
    if size < kernel or cin * cout // groups * kernel**2 > MOST_ELEMENTS // 4:
        return None
    if rng.random() < 0.1:
        size = (size, max(kernel, _log(rng, 4, 160)))
    sizes = list(size) if isinstance(size, tuple) else [size, size]
    if batch * max(cin, cout) * sizes[0] * sizes[1] > MOST_ELEMENTS:
        return None
    return {
        "kind": "conv", "batch": batch, "cin": cin, "cout": cout, "kernel": kernel,
        "size": sizes, "stride": stride, "groups": groups,
    }  # fmt: skip


def _depthwise(rng: np.random.Generator) -> Spec | None:
    if rng.random() < 0.5:
        channels, kernel, stride = _zoo("depthwise")[rng.integers(len(_zoo("depthwise")))]
    else:
        channels, kernel = _log(rng, 8, 1280), int(rng.choice([3, 3, 5, 7]))
        stride = int(rng.choice([1, 1, 2]))
    size = _log(rng, max(4, kernel), 128)
    if channels * size * size > MOST_ELEMENTS:
        return None
    return {
        "kind": "conv", "batch": 1, "cin": channels, "cout": channels, "kernel": kernel,
        "size": [size, size], "stride": stride, "groups": channels,
    }  # fmt: skip


def _attention(rng: np.random.Generator) -> Spec | None:
    heads, depth = (
        int(rng.choice([1, 2, 3, 4, 6, 8, 12, 16])),
        int(rng.choice([32, 40, 64, 80, 128])),
    )
    keys = _log(rng, 8, 1024)
    queries = keys if rng.random() < 0.6 else _log(rng, 1, 512)
    causal = queries == keys and bool(rng.random() < 0.4)
    return {
        "kind": "attention", "heads": heads, "queries": queries, "keys": keys, "depth": depth,
        "batch": int(rng.choice([1, 1, 2, 4])), "mask": "causal" if causal else "",
    }  # fmt: skip


def _rows(kind: str) -> Callable[[np.random.Generator], Spec | None]:
    def drawn(rng: np.random.Generator) -> Spec | None:
        rows, width = _log(rng, 1, 8192), _log(rng, 4, 4096)
        if rows * width > MOST_ELEMENTS // 4:
            return None
        form = int(rng.integers(3))
        return {"kind": kind, "rows": rows, "width": width, "form": form}

    return drawn


_DRAW: Mapping[str, Callable[[np.random.Generator], Spec | None]] = {
    "gemm": _gemm,
    "bmm": _bmm,
    "thin": _thin,
    "conv": _conv,
    "depthwise": _depthwise,
    "attention": _attention,
    **{kind: _rows(kind) for kind in ("softmax", "norm", "reduce", "map")},
}


def graph(spec: Spec) -> Graph:
    """The workload as an ONNX graph."""
    kind = spec["kind"]
    if kind == "gemm":
        return gemm._graph(spec["m"], spec["n"], spec["k"], spec["epilogue"])
    if kind == "bmm":
        return gemm._batched_graph(spec["b"], spec["m"], spec["n"], spec["k"], spec["t"])
    if kind == "conv":
        layer = layer_of(spec)
        one = conv._graph(layer)
        return replace(one, inputs={"x": random(spec["batch"], layer.cin, *layer.size)})
    if kind == "attention":
        return attention._plain(_attention_of(spec))
    return _ROWS[kind](spec["rows"], spec["width"], spec["form"])


def layer_of(spec: Spec) -> conv.Layer:
    return conv.Layer(
        "drawn", spec["cin"], spec["cout"], spec["kernel"], tuple(spec["size"]),
        stride=spec["stride"], groups=spec["groups"],
    )  # fmt: skip


def _attention_of(spec: Spec) -> attention.Attention:
    return attention.Attention(
        "drawn", spec["heads"], spec["queries"], spec["keys"], spec["depth"],
        batch=spec["batch"], mask=spec["mask"],
    )  # fmt: skip


def cost(spec: Spec) -> float:
    """Operations, roughly."""
    kind = spec["kind"]
    if kind in ("gemm", "bmm"):
        return 2.0 * spec.get("b", 1) * spec["m"] * spec["n"] * spec["k"]
    if kind == "conv":
        return layer_of(spec).flops * spec["batch"]
    if kind == "attention":
        return 2 * _attention_of(spec).flops
    return 20.0 * spec["rows"] * spec["width"]


def _softmax(rows: int, width: int, _form: int) -> Graph:
    return Graph([node("Softmax", "x", "y", axis=-1)], {"x": random(rows, width)}, "y", {})


def _norm(rows: int, width: int, form: int) -> Graph:
    scales = {"s": random(width, seed=1), "b": random(width, seed=2)}
    if form < 2:
        nodes = [node("LayerNormalization", "x s b", "y", axis=-1)]
        return Graph(nodes, {"x": random(rows, width)}, "y", scales)
    nodes = [
        node("ReduceMean", "x", "mean", axes=[-1]),
        node("Sub", "x mean", "centred"),
        node("Mul", "centred s", "y"),
    ]
    return Graph(nodes, {"x": random(rows, width)}, "y", {"s": scales["s"]})


def _reduce(rows: int, width: int, form: int) -> Graph:
    op = ("ReduceMax", "ReduceMean", "ReduceMean")[form]
    axes = [0] if form == 2 else [-1]
    return Graph([node(op, "x", "y", axes=axes)], {"x": random(rows, width)}, "y", {})


def _map(rows: int, width: int, form: int) -> Graph:
    x = {"x": random(rows, width)}
    if form == 0:
        return Graph([node("Sigmoid", "x", "s"), node("Mul", "x s", "y")], x, "y", {})
    if form == 1:
        return Graph(
            [node("Add", "x b", "z"), node("Relu", "z", "y")], x, "y", {"b": random(width)}
        )
    return Graph([node("Tanh", "x", "y")], x, "y", {})


_ROWS = {"softmax": _softmax, "norm": _norm, "reduce": _reduce, "map": _map}


@cache
def forbidden() -> frozenset[str]:
    """Keys of what the benchmarks measure, with every epilogue."""
    found = []
    shapes = [(m, n, k) for (n, k), rows in gemm.TRANSFORMER.items() for m in rows]
    shapes += [*gemm.CLASSIFIERS, *((s, s, s) for s in gemm.SQUARES), *gemm.ODD, *gemm.BIASED]
    for m, n, k in shapes:
        found += [{"kind": "gemm", "m": m, "n": n, "k": k, "epilogue": e} for e in EPILOGUES]
    for b, m, n, k in gemm.BATCHED:
        found += [{"kind": "bmm", "b": b, "m": m, "n": n, "k": k, "t": t} for t in (False, True)]
    for layer in conv.LAYERS:
        sizes = {
            "size": list(layer.size),
            "kernel": layer.kernel,
            "cin": layer.cin,
            "cout": layer.cout,
        }
        rest = {"stride": layer.stride, "groups": layer.groups}
        found += [dict(kind="conv", batch=2**b, **sizes, **rest) for b in range(8)]
    for a in attention.SHAPES:
        sizes = {
            "heads": a.heads,
            "queries": a.queries,
            "keys": a.keys,
            "depth": a.depth,
            "batch": a.batch,
        }
        found += [dict(kind="attention", mask=mask, **sizes) for mask in ("", "causal")]
    return frozenset(map(key, found))


@cache
def _zoo(kind: str) -> tuple[tuple[int, ...], ...]:
    """Sizes of the weights of the zoo: (n, k), (cin, cout, kernel, stride, groups), ..."""
    found: dict[str, set[tuple[int, ...]]] = {"matmul": set(), "conv": set(), "depthwise": set()}
    for path in sorted(ZOO.glob("*.onnx")):
        model = onnx.load(path, load_external_data=False)
        shapes = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
        for one in model.graph.node:
            weight = shapes.get(one.input[1]) if len(one.input) > 1 else None
            if weight is not None:
                for name, sizes in _sizes(one, weight):
                    found[name].add(sizes)
    return tuple(sorted(found[kind]))


def _sizes(one: onnx.NodeProto, weight: tuple[int, ...]) -> Iterator[tuple[str, tuple[int, ...]]]:
    attributes = {a.name: onnx.helper.get_attribute_value(a) for a in one.attribute}
    if one.op_type in ("MatMul", "Gemm") and len(weight) == 2:
        k, n = weight[::-1] if attributes.get("transB") else weight
        yield "matmul", (n, k)
    elif one.op_type == "Conv" and len(weight) == 4 and weight[2] == weight[3]:
        groups, stride = attributes.get("group", 1), attributes.get("strides", [1])[0]
        if groups == weight[0] and weight[1] == 1 and groups > 1:
            yield "depthwise", (groups, weight[2], stride)
        else:
            yield "conv", (weight[1] * groups, weight[0], weight[2], stride, groups)
