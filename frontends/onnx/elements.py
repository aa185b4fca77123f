"""Inputs that are sequences or optionals, as the tensors that they consist of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

import numpy as np
from onnx import ModelProto, NodeProto, ValueInfoProto, helper

Tensor: TypeAlias = "tuple[str | np.dtype, Sequence[int | str]]"
"""Dtype and dims; a dim that is a name may have any size."""
Elements: TypeAlias = "Tensor | list[Tensor] | None"


def with_elements(model: ModelProto, elements: Mapping[str, Elements]) -> ModelProto:
    """The model with tensors ``x[0]``, ``x[1]``, .. for an input ``x`` that is a sequence.

    `elements` has their types: a list for a sequence; one tensor, called ``x`` as before, or
    nothing for an optional.
    """
    whole = ModelProto()
    whole.CopyFrom(model)
    graph = whole.graph
    inputs: list[ValueInfoProto] = []
    nodes: list[NodeProto] = []
    for value in model.graph.input:
        if value.name in elements:
            given, made = _declared(value, elements[value.name])
            inputs += given
            nodes += made
        else:
            inputs.append(value)
    nodes += graph.node
    del graph.input[:], graph.node[:]
    graph.input.extend(inputs)
    graph.node.extend(nodes)
    return whole


def _declared(
    value: ValueInfoProto, elements: Elements
) -> tuple[list[ValueInfoProto], list[NodeProto]]:
    """Inputs, and the nodes that make the value of them."""
    if elements is None:
        inside = value.type.optional_type.elem_type
        return [], [helper.make_node("Optional", [], [value.name], type=inside)]
    if isinstance(elements, tuple):
        return [_input(value.name, elements)], []
    inputs = [_input(f"{value.name}[{k}]", kind) for k, kind in enumerate(elements)]
    names = [one.name for one in inputs]
    op_type = "SequenceConstruct" if names else "SequenceEmpty"
    return inputs, [helper.make_node(op_type, names, [value.name])]


def _input(name: str, kind: Tensor) -> ValueInfoProto:
    dtype, dims = kind
    return helper.make_tensor_value_info(
        name, helper.np_dtype_to_tensor_dtype(np.dtype(dtype)), list(dims)
    )
