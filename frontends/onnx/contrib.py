"""Operators of ONNX Runtime's domain com.microsoft, written in ONNX's own.

Optimizers and quantizers of ONNX Runtime leave them in exported files. Each becomes nodes of the
default domain before anything else looks at the graph, or as soon as shapes are known where its
body depends on them; so shapes, folding and passes see what they know. Definitions:
ContribOperators.md of ONNX Runtime.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
from onnx import GraphProto, ModelProto, NodeProto, helper, numpy_helper

from . import contrib_attention, contrib_grouped, contrib_quantized, ml
from . import graph as graphs
from .contrib_body import Body, UnwrittenError
from .contrib_rotary import rotary
from .symbolic_node import Value

DOMAIN = "com.microsoft"
OPSET = 21
"""Of the operators in bodies, if the model has none of them itself."""


def expand(model: ModelProto, constants: Mapping[str, np.ndarray]) -> ModelProto:
    """`model` without the operators that have a body here."""
    if not any(_body_of(node) for node in graphs.all_nodes(model.graph)):
        return model
    written = ModelProto()
    written.CopyFrom(model)
    if "" not in graphs.opsets(model):  # of models of ai.onnx.ml alone
        written.opset_import.append(helper.make_opsetid("", OPSET))
    _expand(written.graph, constants)
    return written


def _expand(graph: GraphProto, constants: Mapping[str, np.ndarray]) -> None:
    for node in graph.node:
        for inner in graphs.subgraphs(node):
            _expand(inner, constants)
    nodes = [part for node in graph.node for part in _body(node, constants, {}) or [node]]
    del graph.node[:]
    graph.node.extend(nodes)


def with_shapes(
    nodes: Iterable[NodeProto],
    constants: Mapping[str, np.ndarray],
    values: Mapping[str, Value],
) -> tuple[list[NodeProto], bool]:
    """`nodes` with the bodies that can be written now, and whether there are any."""
    bodies = [(node, _body(node, constants, values)) for node in nodes]
    return [part for node, body in bodies for part in body or [node]], any(b for _, b in bodies)


def _body(
    node: NodeProto, constants: Mapping[str, np.ndarray], values: Mapping[str, Value]
) -> list[NodeProto]:
    """The nodes that take the place of `node`; none if it stays.

    It stays where it is another operator, or malformed, which whoever reports it will see, and
    where a body needs to know shapes: with `values` it is written then.
    """
    build, written = _body_of(node), Body(node, constants, values)
    if not build:
        return []
    try:
        build(written)
    except (UnwrittenError, ArithmeticError, IndexError, KeyError, TypeError, ValueError):
        return []
    return written.nodes


def _body_of(node: NodeProto) -> Callable[[Body], None] | None:
    if node.op_type == "SimplifiedLayerNormalization" and not graphs.domain_of(node):
        return BODIES["SimplifiedLayerNormalization"]
    if node.domain == "ai.onnx.ml":
        return ml.BODIES.get(node.op_type)
    return BODIES.get(node.op_type) if node.domain == DOMAIN else None


def _gelu(b: Body) -> None:
    """Gelu(x + bias); FastGelu takes the approximation by tanh."""
    x = b.op("Add", b.input(0), b.input(1)) if b.has(1) else b.input(0)
    kind = "tanh" if b.node.op_type == "FastGelu" else "none"
    b.result(0, b.op("Gelu", x, approximate=kind))


def _quick_gelu(b: Body) -> None:
    """x * sigmoid(alpha * x)"""
    alpha = b.op("CastLike", b.constant(b.attr("alpha", 1.702), "float32"), b.input(0))
    gate = b.op("Sigmoid", b.op("Mul", b.input(0), alpha))
    b.result(0, b.op("Mul", b.input(0), gate))


def _skip_norm(b: Body) -> None:
    """norm(x + skip + bias); the sum is the fourth result."""
    simple = b.node.op_type.startswith("SkipSimplified")
    total = b.op("Add", b.input(0), b.input(1))
    bias = 3 if simple else 4
    if b.has(bias):
        total = b.op("Add", total, b.input(bias))
    epsilon = b.attr("epsilon", 1e-12)
    if b.wants(1) or b.wants(2):
        raise UnwrittenError
    if simple:
        y = b.op("RMSNormalization", total, b.input(2), axis=-1, epsilon=epsilon)
    else:
        offset = [b.input(3)] if b.has(3) else []
        y = b.op("LayerNormalization", total, b.input(2), *offset, axis=-1, epsilon=epsilon)
    b.result(0, y)
    b.result(3, total)


def _simple_norm(b: Body) -> None:
    if b.wants(1):
        raise UnwrittenError
    axis, epsilon = b.attr("axis", -1), b.attr("epsilon", 1e-5)
    b.result(0, b.op("RMSNormalization", b.input(0), b.input(1), axis=axis, epsilon=epsilon))


def _embed_norm(b: Body) -> None:
    """LayerNormalization of the sum of word, position and segment embeddings."""
    tables = {index: b.input(index) for index in range(2, 7) if b.has(index)}
    _embedded(b, tables, b.input(8) if b.has(8) else "")


def _quantized_embed_norm(b: Body) -> None:
    """The same of bytes, each table with a scale and a zero point."""
    tables = {
        index: b.op("DequantizeLinear", *(b.input(index + k) for k in (0, 6, 11)))
        for index in range(2, 7)
        if b.has(index)
    }
    _embedded(b, tables, "")


def _embedded(b: Body, tables: Mapping[int, str], positions: str) -> None:
    ids = b.input(0)
    total = b.op("Gather", tables[2], ids)
    if not positions:
        length = b.op("Gather", b.op("Shape", ids), b.constant(1))
        positions = b.op("Range", b.constant(0), length, b.constant(1))
    total = b.op("Add", total, b.op("Gather", tables[3], positions))
    if b.has(1):
        total = b.op("Add", total, b.op("Gather", tables[4], b.input(1)))
    epsilon = b.attr("epsilon", 1e-12)
    norm = b.op("LayerNormalization", total, tables[5], tables[6], axis=-1, epsilon=epsilon)
    b.result(0, norm)
    if b.wants(1):
        if b.has(7):
            counts = b.op("ReduceSum", b.input(7), b.constant([1]), keepdims=0)
        else:
            batch = b.op("Shape", ids, start=0, end=1)
            zero = numpy_helper.from_array(np.zeros(1, np.int32))
            counts = b.op("ConstantOfShape", batch, value=zero)
        b.result(1, b.op("Cast", counts, to=6))
    b.result(2, total)


def _fused_conv(b: Body) -> None:
    """activation(conv(x) + z)"""
    y = b.op("Conv", *b.node.input[:3], **_plain_attributes(b))
    if b.has(3):
        y = b.op("Add", y, b.input(3))
    b.result(0, _activated(b, y, list(b.attr("activation_params", ()))))


def _nhwc_conv(b: Body) -> None:
    """Data channels-last, weights as those of Conv; activation(conv(x) + z)"""
    rank = len(b.shape(1))
    last, first = [0, *range(2, rank), 1], [0, rank - 1, *range(1, rank - 1)]
    x = b.op("Transpose", b.input(0), perm=first)
    y = b.op("Transpose", b.op("Conv", x, *b.node.input[1:3], **_plain_attributes(b)), perm=last)
    if b.has(3):
        y = b.op("Add", y, b.input(3))
    b.result(0, _activated(b, y, list(b.attr("activation_params", ()))))


def _fused_gemm(b: Body) -> None:
    """activation(gemm(a, b, c))"""
    y = b.op("Gemm", *b.node.input, **_plain_attributes(b))
    b.result(0, _activated(b, y, _activation_numbers(b)))


def _fused_matmul(b: Body) -> None:
    """activation(alpha * a' @ b'), the last two dims of each swapped where an attribute says so."""
    if b.attr("transBatchA", 0) or b.attr("transBatchB", 0):
        b.unwritten()
    sides = [b.input(0), b.input(1)]
    for index, name in enumerate(("transA", "transB")):
        if b.attr(name, 0) and (rank := len(b.shape(index))) > 1:
            perm = [*range(rank - 2), rank - 1, rank - 2]
            sides[index] = b.op("Transpose", sides[index], perm=perm)
    y = b.op("MatMul", *sides)
    if b.attr("alpha", 1.0) != 1:
        y = b.op("Mul", y, b.op("CastLike", b.constant(b.attr("alpha"), "float32"), b.input(0)))
    b.result(0, _activated(b, y, _activation_numbers(b)))


def _plain_attributes(b: Body) -> dict[str, Any]:
    """Those that the operator has without its activation."""
    return {k: v for k, v in b.attributes.items() if not k.startswith("activation")}


def _activation_numbers(b: Body) -> list[float]:
    names = ("activation_alpha", "activation_beta")
    return [b.attr(name) for name in names if name in b.attributes]


def _activated(b: Body, y: str, params: list[float]) -> str:
    kind = b.attr("activation", "")
    if kind == "LeakyRelu":
        y = b.op(kind, y, alpha=params[0])
    elif kind == "HardSigmoid":
        y = b.op(kind, y, alpha=params[0], beta=params[1])
    elif kind == "Clip":
        y = b.op(kind, y, *(b.constant(limit, "float32") for limit in params))
    elif kind in ("Relu", "Tanh", "Sigmoid"):
        y = b.op(kind, y)
    elif kind:
        b.unwritten()
    return y


BODIES: dict[str, Callable[[Body], None]] = {
    "BiasGelu": _gelu,
    "EmbedLayerNormalization": _embed_norm,
    "FastGelu": _gelu,
    "FusedConv": _fused_conv,
    "FusedGemm": _fused_gemm,
    "FusedMatMul": _fused_matmul,
    "FusedMatMulActivation": _fused_matmul,
    "Gelu": _gelu,
    "NhwcConv": _nhwc_conv,
    "NhwcFusedConv": _nhwc_conv,
    "QEmbedLayerNormalization": _quantized_embed_norm,
    "QuickGelu": _quick_gelu,
    "RotaryEmbedding": rotary,
    "SimplifiedLayerNormalization": _simple_norm,
    "SkipLayerNormalization": _skip_norm,
    "SkipSimplifiedLayerNormalization": _skip_norm,
    "TransposeMatMul": _fused_matmul,
    **contrib_attention.BODIES,
    **contrib_grouped.BODIES,
    **contrib_quantized.BODIES,
}
