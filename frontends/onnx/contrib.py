"""Operators of ONNX Runtime's domain com.microsoft, written in ONNX's own.

Optimizers and quantizers of ONNX Runtime leave them in exported files. Each becomes nodes of the
default domain before anything else looks at the graph, so shapes, folding and passes see what they
know. Definitions: ContribOperators.md of ONNX Runtime.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from onnx import GraphProto, ModelProto, NodeProto, numpy_helper

from . import graph as graphs
from . import ml
from .contrib_body import Body, UnwrittenError

DOMAIN = "com.microsoft"


def expand(model: ModelProto, constants: Mapping[str, np.ndarray]) -> ModelProto:
    """`model` without the operators that have a body here."""
    if not any(_body_of(node) for node in graphs.all_nodes(model.graph)):
        return model
    written = ModelProto()
    written.CopyFrom(model)
    _expand(written.graph, constants)
    return written


def _body_of(node: NodeProto) -> Callable[[Body], None] | None:
    if node.op_type == "SimplifiedLayerNormalization" and not graphs.domain_of(node):
        return BODIES["SimplifiedLayerNormalization"]
    if node.domain == "ai.onnx.ml":
        return ml.BODIES.get(node.op_type)
    return BODIES.get(node.op_type) if node.domain == DOMAIN else None


def _expand(graph: GraphProto, constants: Mapping[str, np.ndarray]) -> None:
    nodes: list[NodeProto] = []
    for node in graph.node:
        for inner in graphs.subgraphs(node):
            _expand(inner, constants)
        build, body = _body_of(node), Body(node, constants)
        try:
            if build:
                build(body)
        except (UnwrittenError, ArithmeticError, IndexError, KeyError, TypeError, ValueError):
            body.nodes = []  # or the node is malformed, which whoever reports it will see
        nodes += body.nodes or [node]
    del graph.node[:]
    graph.node.extend(nodes)


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
    ids = b.input(0)
    total = b.op("Gather", b.input(2), ids)
    if b.has(8):
        positions = b.input(8)
    else:
        length = b.op("Gather", b.op("Shape", ids), b.constant(1))
        positions = b.op("Range", b.constant(0), length, b.constant(1))
    total = b.op("Add", total, b.op("Gather", b.input(3), positions))
    if b.has(1):
        total = b.op("Add", total, b.op("Gather", b.input(4), b.input(1)))
    epsilon = b.attr("epsilon", 1e-12)
    norm = b.op("LayerNormalization", total, b.input(5), b.input(6), axis=-1, epsilon=epsilon)
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
    kind, params = b.attr("activation", ""), list(b.attr("activation_params", ()))
    attributes = {
        name: value
        for name, value in b.attributes.items()
        if name not in ("activation", "activation_params")
    }
    y = b.op("Conv", *[b.input(k) for k in range(min(3, len(b.node.input)))], **attributes)
    if b.has(3):
        y = b.op("Add", y, b.input(3))
    if kind == "LeakyRelu":
        y = b.op(kind, y, alpha=params[0])
    elif kind == "HardSigmoid":
        y = b.op(kind, y, alpha=params[0], beta=params[1])
    elif kind == "Clip":
        y = b.op(kind, y, *(b.constant(limit, "float32") for limit in params))
    elif kind in ("Relu", "Tanh", "Sigmoid"):
        y = b.op(kind, y)
    elif kind:
        raise UnwrittenError
    b.result(0, y)


def _matmul_n_bits(b: Body) -> None:
    """x @ w', with w in blocks of a row that share a scale and a zero point; lowest bits first."""
    bits, block = b.attr("bits", 4), b.attr("block_size", 32)
    rows, length = b.attr("N"), b.attr("K")
    if bits not in (2, 4, 8) or b.has(4) or b.has(5):
        raise UnwrittenError
    blocks = -(-length // block)
    weight = _unpacked(b, b.input(1), bits, [rows, blocks * block])
    scales = b.op("Reshape", b.input(2), b.constant([rows, blocks]))
    given = b.constants.get(b.input(3)) if b.has(3) else None
    if b.has(3) and (given is None or given.dtype != np.uint8):
        raise UnwrittenError
    if given is None:
        zeros = b.constant(np.full((rows, blocks), 1 << (bits - 1)), "uint8")
    else:
        padded = -(-blocks * bits // 8) * 8 // bits
        zeros = _unpacked(b, b.input(3), bits, [rows, padded])
        zeros = b.op("Slice", zeros, *(b.constant([k]) for k in (0, blocks, 1)))
    real = b.op("DequantizeLinear", weight, scales, zeros, axis=1, block_size=block)
    if blocks * block != length:
        real = b.op("Slice", real, *(b.constant([k]) for k in (0, length, 1)))
    b.result(0, b.op("MatMul", b.input(0), b.op("Transpose", real, perm=[1, 0])))


def _unpacked(b: Body, packed: str, bits: int, dims: list[int]) -> str:
    """Each byte as the 8 / `bits` numbers in it."""
    if packed not in b.constants:
        raise UnwrittenError
    whole = b.constants[packed]
    parts = [(whole >> shift) & ((1 << bits) - 1) for shift in range(0, 8, bits)]
    return b.constant(np.stack(parts, -1).reshape(dims), "uint8")


def _quantized(op_type: str, operands: int, **extra: Any) -> Callable[[Body], None]:
    """quantize(f(dequantize(x, scale, zero), ..)): three inputs an operand, two of the result."""

    def build(b: Body) -> None:
        real = [b.op("DequantizeLinear", *_scaled(b, 3 * k)) for k in range(operands)]
        passed = {k: v for k, v in b.attributes.items() if k == "alpha"} | extra
        y = b.op(op_type, *real, **passed)
        last = 3 * operands
        zero = [b.input(last + 1)] if b.has(last + 1) else []
        b.result(0, b.op("QuantizeLinear", y, b.input(last), *zero))

    return build


def _scaled(b: Body, first: int) -> list[str]:
    return [b.input(k) for k in range(first, first + 3) if b.has(k)]


def _quantized_pool(b: Body) -> None:
    if b.attr("channels_last", 0):
        raise UnwrittenError
    _quantized("GlobalAveragePool", 1)(b)


def _quantized_concat(b: Body) -> None:
    """Scale and zero point of the result, then three inputs an operand."""
    count = (len(b.node.input) - 2) // 3
    real = [b.op("DequantizeLinear", *_scaled(b, 2 + 3 * k)) for k in range(count)]
    joined = b.op("Concat", *real, axis=b.attr("axis"))
    b.result(0, b.op("QuantizeLinear", joined, b.input(0), b.input(1)))


BODIES: dict[str, Callable[[Body], None]] = {
    "BiasGelu": _gelu,
    "EmbedLayerNormalization": _embed_norm,
    "FastGelu": _gelu,
    "FusedConv": _fused_conv,
    "Gelu": _gelu,
    "MatMulNBits": _matmul_n_bits,
    "QLinearAdd": _quantized("Add", 2),
    "QLinearConcat": _quantized_concat,
    "QLinearGlobalAveragePool": _quantized_pool,
    "QLinearLeakyRelu": _quantized("LeakyRelu", 1),
    "QLinearMul": _quantized("Mul", 2),
    "QLinearSigmoid": _quantized("Sigmoid", 1),
    "QuickGelu": _quick_gelu,
    "SimplifiedLayerNormalization": _simple_norm,
    "SkipLayerNormalization": _skip_norm,
    "SkipSimplifiedLayerNormalization": _skip_norm,
}
