"""Quantized networks: a decode step with 4-bit weights, and convolutional ones with 8-bit data.

    python -m tools.bench quantized llama_decode llama_mlp_128 resnet50 mobilenet_v2

The decode step is a layer of TinyLlama 1.1B's sizes (hidden 2048, 32 heads of 64, 4 of keys, 5632
inside), for one token after 256, its products as MatMulNBits: 4 bits, blocks of 32, symmetric.
llama_mlp_N is the second half of such a layer for any number of tokens, run for N of them. The
others are networks of tests/zoo as `onnxruntime.quantization.quantize_static` makes them (QDQ, u8
data, s8 weights by channel), calibrated on noise.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import ModelProto, helper, numpy_helper

import tvmext

from .models import prepared

TOKENS = {f"llama_mlp_{count}": count for count in (1, 16, 128)}
NAMES = ("llama_decode", *TOKENS, "resnet50", "mobilenet_v2")
ZOO = Path(__file__).resolve().parents[2] / "tests" / "zoo"
BLOCK = 32
CALIBRATION = 8
"""Images of noise."""
HIDDEN, INSIDE, HEADS, KEYS, WIDTH, PAST = 2048, 5632, 32, 4, 64, 256
SECOND_HALF = """    gate = MatMul (b, wg)
    up = MatMul (b, wu)
    s = Sigmoid (gate)
    silu = Mul (gate, s)
    inner = Mul (silu, up)
    down = MatMul (inner, wd)
    y = Add (h, down)
}
"""
LAYER = f"""
<ir_version: 10, opset_import: ["" : 20, "com.microsoft" : 1]>
layer (float[1,1,{HIDDEN}] x, float[1,1,1,{WIDTH}] cos, float[1,1,1,{WIDTH}] sin,
       float[1,{KEYS},{PAST},{WIDTH}] past_k, float[1,{KEYS},{PAST},{WIDTH}] past_v)
    => (float[1,1,{HIDDEN}] y, float[1,{KEYS},{PAST + 1},{WIDTH}] k,
        float[1,{KEYS},{PAST + 1},{WIDTH}] v)
{{
    a = SimplifiedLayerNormalization <axis = -1, epsilon = 1e-5> (x, norm_a)
    q0 = MatMul (a, wq)
    k0 = MatMul (a, wk)
    v0 = MatMul (a, wv)
    heads = Constant <value_ints = [1, 1, {HEADS}, {WIDTH}]> ()
    few = Constant <value_ints = [1, 1, {KEYS}, {WIDTH}]> ()
    q1 = Reshape (q0, heads)
    k1 = Reshape (k0, few)
    v1 = Reshape (v0, few)
    q2 = Transpose <perm = [0, 2, 1, 3]> (q1)
    k2 = Transpose <perm = [0, 2, 1, 3]> (k1)
    v2 = Transpose <perm = [0, 2, 1, 3]> (v1)
    qa, qb = Split <axis = 3, num_outputs = 2> (q2)
    qn = Neg (qb)
    qt = Concat <axis = 3> (qn, qa)
    qc = Mul (q2, cos)
    qs = Mul (qt, sin)
    q = Add (qc, qs)
    ka, kb = Split <axis = 3, num_outputs = 2> (k2)
    kn = Neg (kb)
    kt = Concat <axis = 3> (kn, ka)
    kc = Mul (k2, cos)
    ks = Mul (kt, sin)
    new_k = Add (kc, ks)
    k = Concat <axis = 2> (past_k, new_k)
    v = Concat <axis = 2> (past_v, v2)
    grouped = Constant <value_ints = [1, {KEYS}, {HEADS // KEYS}, {WIDTH}]> ()
    qg = Reshape (q, grouped)
    keys = Transpose <perm = [0, 1, 3, 2]> (k)
    scores = MatMul (qg, keys)
    eighth = Constant <value_float = {WIDTH**-0.5}> ()
    scaled = Mul (scores, eighth)
    weights = Softmax <axis = -1> (scaled)
    mixed = MatMul (weights, v)
    flat = Constant <value_ints = [1, 1, {HEADS * WIDTH}]> ()
    together = Reshape (mixed, flat)
    o = MatMul (together, wo)
    h = Add (x, o)
    b = SimplifiedLayerNormalization <axis = -1, epsilon = 1e-5> (h, norm_b)
{SECOND_HALF}"""
MLP = f"""
<ir_version: 10, opset_import: ["" : 20, "com.microsoft" : 1]>
mlp (float[tokens,{HIDDEN}] h) => (float[tokens,{HIDDEN}] y)
{{
    b = Identity (h)
{SECOND_HALF}"""
WEIGHTS = {
    "wq": (HIDDEN, HEADS * WIDTH), "wk": (HIDDEN, KEYS * WIDTH), "wv": (HIDDEN, KEYS * WIDTH),
    "wo": (HEADS * WIDTH, HIDDEN), "wg": (HIDDEN, INSIDE), "wu": (HIDDEN, INSIDE),
    "wd": (INSIDE, HIDDEN), "norm_a": (HIDDEN,), "norm_b": (HIDDEN,),
}  # fmt: skip


@contextmanager
def request(name: str, folder: Path) -> Iterator[dict[str, Any]]:
    """The request of `models.model_row` for a network; the decode step also in float32."""
    folder.mkdir(parents=True, exist_ok=True)
    path, plain = folder / f"{name}.onnx", folder / f"{name}.float.onnx"
    if not path.exists():
        if name == "llama_decode" or name in TOKENS:
            layer = with_weights(LAYER if name == "llama_decode" else MLP)
            onnx.save(layer, plain)
            onnx.save(in_4_bits(layer), path)
        else:
            static_qdq(name, path)
    sizes = {"tokens": TOKENS[name]} if name in TOKENS else {} if plain.exists() else {"batch": 1}
    with prepared(path, sizes, name in TOKENS) as found:
        if plain.exists():
            library = folder / f"{name}.float.so"
            tvmext.compile(plain).save(library)
            found["beside"] = {"tvmext float32": str(library)}
        yield {**found, "step": last_step(onnx.load(path))}


def last_step(model: ModelProto) -> float:
    """Of the quantized result of a network, a little more than one step; 0 if it has none."""
    arrays = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    last = next(n for n in model.graph.node if model.graph.output[0].name in n.output)
    if last.op_type != "DequantizeLinear":
        return 0.0
    return 1.01 * float(arrays[last.input[1]].max())


def with_weights(text: str) -> ModelProto:
    """A network in float32, with random weights."""
    model = onnx.parser.parse_model(text)
    read = {name for node in model.graph.node for name in node.input}
    rng = np.random.default_rng(0)
    for name, shape in WEIGHTS.items():
        if name not in read:
            continue
        array = rng.standard_normal(shape, np.float32) * np.float32(shape[0] ** -0.5)
        model.graph.initializer.append(numpy_helper.from_array(array, name))
    return model


def in_4_bits(model: ModelProto) -> ModelProto:
    """The products with weights as MatMulNBits."""
    made = ModelProto()
    made.CopyFrom(model)
    arrays = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    del made.graph.node[:], made.graph.initializer[:]
    for node in model.graph.node:
        weight = arrays.get(node.input[1]) if node.op_type == "MatMul" else None
        if weight is not None:
            packed, scales = packed_blocks(arrays.pop(node.input[1]))
            names = [f"{node.input[1]}_q", f"{node.input[1]}_s"]
            made.graph.initializer.append(numpy_helper.from_array(packed, names[0]))
            made.graph.initializer.append(numpy_helper.from_array(scales, names[1]))
            depth, columns = weight.shape
            node = helper.make_node(
                "MatMulNBits", [node.input[0], *names], node.output, name=node.output[0],
                domain="com.microsoft", K=depth, N=columns, bits=4, block_size=BLOCK,
            )  # fmt: skip
        made.graph.node.append(node)
    kept = [numpy_helper.from_array(array, name) for name, array in arrays.items()]
    made.graph.initializer.extend(kept)
    return made


def packed_blocks(weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """``weight[k, n]`` as ``bytes[n, block, 16]``, two numbers in one, and ``scales[n, block]``."""
    depth, columns = weight.shape
    blocks = weight.T.reshape(columns, depth // BLOCK, BLOCK)
    scales = np.abs(blocks).max(-1) / np.float32(7)
    numbers = np.clip(np.rint(blocks / scales[..., None]) + 8, 0, 15).astype(np.uint8)
    return numbers[..., 0::2] | numbers[..., 1::2] << 4, scales.reshape(-1)


def static_qdq(name: str, path: Path) -> None:
    """A network of the zoo, quantized by ONNX Runtime."""
    from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    from tests.zoo import light

    model = light.load(ZOO / f"{name}.legacy.dyn.onnx")
    images = [light.make_inputs(model, seed, batch=1) for seed in range(CALIBRATION)]
    plain = path.with_suffix(".plain.onnx")
    light.save(model, plain)
    quant_pre_process(plain, plain, skip_symbolic_shape=True)

    class Noise(CalibrationDataReader):  # type: ignore[misc]
        def get_next(self) -> Any:
            return images.pop() if images else None

    quantize_static(
        plain, path, Noise(), per_channel=True, activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
    )  # fmt: skip
