"""Symbolic shapes of operators without a rule of their own, by ONNX's inference for a single node.

Each distinct expression among the dims becomes one dim_param token, so a dim that passes through
comes back as the expression it was; a dim that ONNX makes up is one that only the run knows.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
from onnx import TypeProto, defs, helper, numpy_helper, shape_inference

from ..dims import Expr
from .symbolic_node import Node, Size, Value, dtype_name


class OnnxInference:
    """ONNX's own inference; one per model."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.opsets = {o.domain: o.version for o in model.opset_import}
        self.imports = list(model.opset_import)
        self.ir_version = model.ir_version

    def infer(self, node: Node, scope: Mapping[str, Value]) -> list[Value]:
        """A value per output; dtype "" and shape None where ONNX does not know.

        `scope` holds the values a subgraph of the node may refer to.
        """
        proto = node.proto
        tokens: dict[Expr, str] = {}
        named = dict(zip(proto.input, node.inputs))
        if any(a.HasField("g") or a.graphs for a in proto.attribute):
            named = {**scope, **named}
        types = {name: _type(v, tokens) for name, v in named.items() if name and v and v.dtype}
        try:
            schema = self._schema(proto)
            found = shape_inference.infer_node_outputs(
                schema, proto, types, _constants(named), None, self.imports, self.ir_version
            )
        except (
            defs.SchemaError,
            shape_inference.InferenceError,
            onnx.checker.ValidationError,
            KeyError,
            RuntimeError,
        ):
            found = {}
        dims: dict[str, Size] = {token: size for size, token in tokens.items()}
        return [_value(node, k, found.get(name), dims) for k, name in enumerate(proto.output)]

    def _schema(self, proto: onnx.NodeProto) -> defs.OpSchema:
        """In the model's version, or the newest: bodies of contrib.py use operators of any."""
        try:
            return defs.get_schema(proto.op_type, self.opsets[proto.domain], proto.domain)
        except defs.SchemaError:
            return defs.get_schema(proto.op_type, proto.domain)


def _type(value: Value, tokens: dict[Expr, str]) -> TypeProto:
    elem = 8 if value.dtype == "str" else helper.np_dtype_to_tensor_dtype(np.dtype(value.dtype))
    if value.shape is None:
        return helper.make_tensor_type_proto(elem, None)
    dims = [
        size if isinstance(size, int) else tokens.setdefault(size, f"t{len(tokens)}")
        for size in value.shape
    ]
    return helper.make_tensor_type_proto(elem, dims)


def _constants(named: Mapping[str, Value | None]) -> dict[str, onnx.TensorProto]:
    """The inputs whose elements are all constant, for operators whose shapes depend on them."""
    constants = {}
    for name, value in named.items():
        if value is None or value.data is None:
            continue
        if all(isinstance(x, bool | int | float) for x in value.data.flat):
            constants[name] = numpy_helper.from_array(value.data.astype(value.dtype), name)
    return constants


def _value(node: Node, k: int, found: TypeProto | None, dims: Mapping[str, Size]) -> Value:
    if found is None or not found.HasField("tensor_type"):
        return Value("", None)
    tensor = found.tensor_type
    dtype = dtype_name(tensor.elem_type)
    if not tensor.HasField("shape"):
        return Value(dtype, None)
    # ONNX's rule for Attention says 0 where it cannot multiply dims that are not constant
    zero = not dims or any(size == 0 for v in node.inputs if v for size in v.shape or ())
    shape: list[Size] = []
    for axis, dim in enumerate(tensor.shape.dim):
        if dim.HasField("dim_value") and (dim.dim_value or zero):
            shape.append(dim.dim_value)
        else:
            shape.append(dims[dim.dim_param] if dim.dim_param in dims else node.unknown(axis, k))
    return node.value(dtype, shape)
