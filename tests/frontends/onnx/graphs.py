"""Small models in ONNX's text form, with symbolic dims, and inputs for them."""

from __future__ import annotations

import numpy as np
import onnx

from tvmext.frontends.dims import evaluate, parse


def graph(opset: int, inputs: str, body: str, output: str = "y") -> onnx.ModelProto:
    """A model in ONNX's text form; the output's type is left to inference."""
    text = f"""<ir_version: 8, opset_import: ["" : {opset}]>
    g ({inputs}) => (float {output}) {{ {body} }}"""
    return onnx.parser.parse_model(text)


def draw(model: onnx.ModelProto, sizes: dict[str, int]) -> dict[str, np.ndarray]:
    """Inputs of these sizes."""
    rng = np.random.default_rng(0)
    arrays = {}
    for value in model.graph.input:
        tensor = value.type.tensor_type
        shape = [
            d.dim_value if d.HasField("dim_value") else evaluate(parse(d.dim_param), sizes)
            for d in tensor.shape.dim
        ]
        dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)
        arrays[value.name] = rng.integers(0, 3, shape).astype(dtype)
    return arrays
