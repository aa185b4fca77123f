"""Shapes and known values at fixed sizes, by ONNX's own inference."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import onnx
from onnx import ModelProto, helper, numpy_helper

from tvmext.errors import DimError

from ..dims import Dim, Expr, Guard
from . import graph as graphs
from .fold import fold


@dataclass(frozen=True)
class Value:
    dtype: str
    shape: tuple[int | Expr, ...] | None
    data: np.ndarray | None = None


@dataclass(frozen=True)
class Shapes:
    values: dict[str, Value]
    dims: dict[str, Dim] = field(default_factory=dict)
    guards: tuple[Guard, ...] = ()


def infer(model: ModelProto, dims: Mapping[str, int]) -> Shapes:
    work = ModelProto()
    work.CopyFrom(model)
    for value in work.graph.input:
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param:
                if dim.dim_param not in dims:
                    raise DimError(f"dim '{dim.dim_param}' has no size", hint="give it in dims")
                dim.dim_value = dims[dim.dim_param]
    del work.graph.value_info[:]
    for output in work.graph.output:
        output.type.tensor_type.ClearField("shape")
    known = {t.name: numpy_helper.to_array(t) for t in work.graph.initializer}
    while True:
        work2 = onnx.shape_inference.infer_shapes(work, data_prop=True)
        types = {
            v.name: v.type.tensor_type
            for v in [*work2.graph.value_info, *work2.graph.input, *work2.graph.output]
        }
        count = len(known)
        nodes = list(work.graph.node)
        del work.graph.node[:]
        for node in nodes:
            outs = None
            t = types.get(node.input[0]) if node.input else None
            if (
                node.op_type in ("Shape", "Size")
                and t is not None
                and t.HasField("shape")
                and all(d.HasField("dim_value") for d in t.shape.dim)
            ):
                s = np.array([d.dim_value for d in t.shape.dim], np.int64)
                a = graphs.attributes(node)
                outs = (
                    [s[a.get("start", 0) : a.get("end", len(s))]]
                    if node.op_type == "Shape"
                    else [np.array(s.prod())]
                )
            elif node.input and all(i in known for i in node.input if i):
                outs = fold(node, [known[i] for i in node.input if i], graphs.opsets(model))
            if outs is None:
                work.graph.node.append(node)
                continue
            for name, array in zip(node.output, outs):
                known[name] = array
                if array.size <= 4096:
                    work.graph.initializer.append(
                        numpy_helper.from_array(
                            np.ascontiguousarray(array).reshape(array.shape), name
                        )
                    )
                else:
                    work.graph.input.append(
                        helper.make_tensor_value_info(
                            name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape
                        )
                    )
        if len(known) == count:
            break
    values = {}
    for name, t in types.items():
        shape = None
        if t.HasField("shape") and all(d.HasField("dim_value") for d in t.shape.dim):
            shape = tuple(d.dim_value for d in t.shape.dim)
        values[name] = Value(
            str(helper.tensor_dtype_to_np_dtype(t.elem_type)) if t.elem_type else "", shape
        )
    for name, array in known.items():
        values[name] = Value(str(array.dtype), array.shape, array)
    return Shapes(values)
