"""Parts of an ONNX graph as models of their own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress

import numpy as np
import onnx
from onnx import GraphProto, ModelProto, NodeProto, TypeProto, ValueInfoProto, helper, numpy_helper

from tvmext.frontends.onnx.graph import reads

Values = Mapping[str, np.ndarray]


class Graph:
    """A model of which parts are taken.

    `seen` are values of one run by name: where a part begins with an integer or a truth value,
    which may be an index or a shape, it keeps the one that was seen as a constant. Other values
    that a part begins with become its inputs.
    """

    def __init__(self, model: ModelProto, seen: Values) -> None:
        self.model = model
        self.nodes = list(model.graph.node)
        self._seen = seen
        self._types = types(model)
        self._weights = {tensor.name: tensor for tensor in model.graph.initializer}
        self._outputs = {value.name for value in model.graph.output}

    def part(self, nodes: Sequence[NodeProto]) -> ModelProto | None:
        """The model of some of the nodes, in the graph's order; None if a type is not known."""
        made = {name for node in nodes for name in node.output if name}
        needed = sorted({name for node in nodes for name in reads(node)} - made)
        used = {name for node in nodes for name in reads(node)}
        results = sorted(name for name in made if name not in used or name in self._outputs)
        graph = GraphProto(name=self.model.graph.name or "main", node=nodes)
        for name in needed:
            if name in self._weights:
                graph.initializer.append(self._weights[name])
            elif self._is_kept(name):
                graph.initializer.append(numpy_helper.from_array(self._seen[name], name))
            elif name in self._types:
                graph.input.append(helper.make_value_info(name, self._types[name]))
            else:
                return None
        for name in results:
            graph.output.append(helper.make_value_info(name, self._types.get(name, TypeProto())))
        part = ModelProto(ir_version=self.model.ir_version, graph=graph)
        part.opset_import.extend(self.model.opset_import)
        part.functions.extend(self.model.functions)
        return part

    def _is_kept(self, name: str) -> bool:
        return name in self._seen and self._seen[name].dtype.kind in "iub"


def types(model: ModelProto) -> dict[str, TypeProto]:
    """The types of values, as declared and as ONNX infers them, less tensors of unknown rank."""
    with suppress(Exception):  # a model that fails may fail here too; what it declares remains
        model = onnx.shape_inference.infer_shapes(model, data_prop=True)
    graph = model.graph
    values: list[ValueInfoProto] = [*graph.input, *graph.output, *graph.value_info]
    return {value.name: value.type for value in values if _is_known(value.type)}


def _is_known(kind: TypeProto) -> bool:
    return not kind.HasField("tensor_type") or (
        kind.tensor_type.HasField("shape") and kind.tensor_type.elem_type != 0
    )
