"""Where propagation starts: the types of the inputs with their named dims, and constants."""

from __future__ import annotations

import keyword
import math
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, TypeProto, helper, numpy_helper

from tvmext.errors import DimError

from ..dims import Dim, names_of, parse, symbol
from .symbolic_facts import UNKNOWN_PREFIX
from .symbolic_node import MAX_ELEMENTS, TRACKED, Size, Value, array, dtype_name

MAX_TEXT = 200
"""Longer text is a name: to multiply out what it says could take for ever."""
UNNAMED_RANK = 1 << 20
"""Of two equal dims one with a name of its own is kept rather than ``<input>_<axis>``."""


class InputTypes:
    """The inputs that a caller passes, as values with symbolic dims.

    A dim_param that is a name becomes a symbol, changed to an identifier if it is none; one that is
    an expression over names of other dims ("past + seq") is read as that; a dim without either is
    called ``<input>_<axis>``. `dims` are in order of appearance.
    """

    def __init__(self, graph: onnx.GraphProto) -> None:
        self.values: dict[str, Value] = {}
        self.dims: dict[str, Dim] = {}
        self.rank: dict[str, int] = {}
        self._by_label: dict[str, str] = {}
        constants = {tensor.name for tensor in graph.initializer}
        inputs = [value for value in graph.input if value.name not in constants]
        params = (d.dim_param for v in inputs for d in v.type.tensor_type.shape.dim)
        self._plain = {text for text in params if text.isidentifier()}
        for value in inputs:
            self.values[value.name] = self._value(value.name, value.type)

    def _value(self, name: str, declared: TypeProto) -> Value:
        tensor = declared.tensor_type
        if not declared.HasField("tensor_type"):
            return Value("", None)
        if not tensor.HasField("shape"):
            return Value(dtype_name(tensor.elem_type), None)
        shape = [self._size(dim, f"{name}_{axis}") for axis, dim in enumerate(tensor.shape.dim)]
        return Value(dtype_name(tensor.elem_type), tuple(shape))

    def _size(self, dim: Any, position: str) -> Size:
        if dim.HasField("dim_value") and dim.dim_value >= 0:
            return dim.dim_value
        text = dim.dim_param.strip()
        if text and text not in self._plain and len(text) <= MAX_TEXT:
            try:
                size = parse(text)
            except DimError:
                return self._symbol(text)
            # "batch-size" is a name, "past+seq" a sum: the names in a sum are dims of their own
            return size if names_of(size) <= self._plain else self._symbol(text)
        return self._symbol(text or position, 0 if text else UNNAMED_RANK)

    def _symbol(self, label: str, rank: int = 0) -> Size:
        """The dim that the model calls `label`."""
        if label not in self._by_label:
            name = identifier(label)
            while name in self.dims:
                name += "_"
            self._by_label[label] = name
            self.rank[name] = rank + len(self.dims)
            self.dims[name] = Dim(name, label="" if name == label else label)
        return symbol(self._by_label[label])


def identifier(label: str) -> str:
    """`label` as a name of a dim: an ASCII identifier that is no keyword and not reserved."""
    name = re.sub(r"\W+", "_", label, flags=re.ASCII).strip("_") or "dim"
    if name[0].isdigit() or keyword.iskeyword(name) or name.startswith(UNKNOWN_PREFIX):
        name = f"dim_{name}"
    return name


def initializer_value(tensor: TensorProto) -> Value:
    """A constant: its elements too, if they are few and inside the model."""
    dtype, shape = dtype_name(tensor.data_type), tuple(tensor.dims)
    inside = tensor.data_location != TensorProto.EXTERNAL
    if not inside or dtype not in TRACKED or math.prod(shape) > MAX_ELEMENTS:
        return Value(dtype, shape)
    elements = numpy_helper.to_array(tensor).flatten().tolist()
    return Value(dtype, shape, array(elements, shape))


def constant_value(node: onnx.NodeProto) -> Value:
    """The output of a Constant node, whichever attribute holds it."""
    for attribute in node.attribute:
        value = helper.get_attribute_value(attribute)
        match attribute.name:
            case "value":
                return initializer_value(value)
            case "sparse_value":
                return Value(dtype_name(value.values.data_type), tuple(value.dims))
            case "value_string" | "value_strings":
                return Value("str", np.shape(value))
            case "value_int" | "value_ints":
                return _listed("int64", value)
            case "value_float" | "value_floats":
                return _listed("float32", value)
    return Value("", None)


def _listed(dtype: str, value: int | float | Sequence[int | float]) -> Value:
    data = np.asarray(value, dtype)
    if data.size > MAX_ELEMENTS:
        return Value(dtype, data.shape)
    return Value(dtype, data.shape, array(data.flatten().tolist(), data.shape))
