"""ONNX -> ONNX: the same network with less in it.

Functions inlined, constants folded, decided Ifs replaced by their branch, dead nodes dropped, nodes
in order of computation. What is left is what symbolic shapes and the converters have to know.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from onnx import GraphProto, ModelProto, NodeProto, helper, numpy_helper

from tvmext.errors import ModelError

from . import contrib, inline, tensors
from . import graph as graphs
from .fold import fold
from .load import Source

if TYPE_CHECKING:
    from .symbolic import Shapes

INLINE_ELEMENTS = 1024
"""Constants up to this size stay in the graph, where shape inference sees their values."""


@dataclass(frozen=True)
class Prepared:
    """A graph ready for import.

    `model` holds nodes in order, the inputs of the network first among its inputs, small constants
    as initializers, and large ones as further inputs (their values are in `constants`).
    """

    model: ModelProto
    constants: dict[str, np.ndarray]
    inputs: tuple[str, ...]
    name: str
    versions: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.versions.update(graphs.opsets(self.model))


def prepare(source: Source, operators: Iterable[str]) -> Prepared:
    """`operators` are those of the default domain that have a converter; the rest is inlined."""
    inputs = tuple(v.name for v in source.model.graph.input if v.name not in source.constants)
    model = contrib.expand(source.model, source.constants)
    model = with_constants(model, source.constants, inputs)
    model = inline.inline_functions(model, operators, source.name)
    state = _Folding(dict(source.constants), graphs.opsets(model), source.name)
    for node in graphs.in_order(model.graph.node, source.name):
        state.visit(node)
    return finish(model, state.nodes, state.constants, inputs, source.name)


def inline_branches(prepared: Prepared, decided: dict[str, bool]) -> Prepared:
    """Replace the Ifs whose condition is in `decided` and fold again."""
    state = _Folding(dict(prepared.constants), prepared.versions, prepared.name)
    state.decided = decided
    for node in prepared.model.graph.node:
        state.visit(node)
    return finish(prepared.model, state.nodes, state.constants, prepared.inputs, prepared.name)


def decided_conditions(prepared: Prepared, shapes: Shapes) -> dict[str, bool]:
    """{condition: value} of the Ifs that the sizes decide."""
    found: dict[str, bool] = {}
    conditions = {n.input[0] for n in prepared.model.graph.node if n.op_type == "If"}
    for name in conditions & shapes.values.keys():
        data = shapes.values[name].data
        if data is not None and data.size and isinstance(data.flat[0], bool | int):
            found[name] = bool(data.flat[0])
    return found


def finish(
    model: ModelProto,
    nodes: list[NodeProto],
    constants: dict[str, np.ndarray],
    inputs: tuple[str, ...],
    name: str,
) -> Prepared:
    """Drop dead nodes and constants and write the rest into a new model."""
    nodes = graphs.live(nodes, [output.name for output in model.graph.output])
    used = {value for node in nodes for value in graphs.reads(node)}
    used.update(output.name for output in model.graph.output)
    light = ModelProto(ir_version=max(model.ir_version, 4))
    light.opset_import.extend(model.opset_import)
    light.graph.name = model.graph.name
    light.graph.node.extend(nodes)
    light.graph.input.extend(value for value in model.graph.input if value.name in inputs)
    light.graph.output.extend(model.graph.output)
    kept = {key: array for key, array in constants.items() if key in used}
    return Prepared(with_constants(light, kept, inputs), kept, inputs, name)


def with_constants(
    model: ModelProto, constants: dict[str, np.ndarray], inputs: tuple[str, ...]
) -> ModelProto:
    """`model` with its constants: small ones as initializers, large ones as typed inputs."""
    light = ModelProto()
    light.CopyFrom(model)
    del light.graph.initializer[:]
    true_inputs = [value for value in model.graph.input if value.name in inputs]
    del light.graph.input[:]
    light.graph.input.extend(true_inputs)
    for name, array in constants.items():
        if array.size <= INLINE_ELEMENTS:
            light.graph.initializer.append(numpy_helper.from_array(np.asarray(array), name))
        else:
            kind = helper.np_dtype_to_tensor_dtype(array.dtype)
            light.graph.input.append(helper.make_tensor_value_info(name, kind, array.shape))
    return light


class _Folding:
    """One walk over nodes in order: collects constants, and the nodes that stay."""

    def __init__(
        self, constants: dict[str, np.ndarray], versions: dict[str, int], name: str
    ) -> None:
        self.constants = constants
        self.versions = versions
        self.name = name
        self.nodes: list[NodeProto] = []
        self.decided: dict[str, bool] = {}

    def visit(self, node: NodeProto) -> None:
        if node.op_type == "Constant" and not graphs.domain_of(node):
            self.constants[node.output[0]] = _constant(node, self.name)
        elif node.op_type == "If" and (taken := self._condition(node)) is not None:
            nodes, body = inline.branch(node, taken)
            self._take_initializers(body)
            for inner in graphs.in_order(nodes, self.name):
                self.visit(inner)
        elif node.input and all(name in self.constants for name in node.input if name):
            self._fold(node)
        else:
            self.nodes.append(node)

    def _condition(self, node: NodeProto) -> bool | None:
        name = node.input[0]
        if name in self.constants:
            return bool(self.constants[name].reshape(-1)[0])
        return self.decided.get(name)

    def _take_initializers(self, body: GraphProto) -> None:
        for tensor in body.initializer:
            where = f"initializer '{tensor.name}' of '{self.name}'"
            self.constants[tensor.name] = tensors.to_array(tensor, where, None)

    def _fold(self, node: NodeProto) -> None:
        inputs = [self.constants[name] for name in node.input if name]
        outputs = fold(node, inputs, self.versions) if not any(graphs.subgraphs(node)) else None
        if outputs is None:
            self.nodes.append(node)
            return
        for name, array in zip(node.output, outputs):
            if name:
                self.constants[name] = array


def _constant(node: NodeProto, source: str) -> np.ndarray:
    """The value of a Constant node, whichever of its attributes holds it."""
    where = f"constant '{graphs.label(node)}' of '{source}'"
    for name, value in graphs.attributes(node).items():
        match name:
            case "value":
                return tensors.to_array(value, where, None)
            case "sparse_value":
                return tensors.sparse_to_array(value, where)
            case "value_float" | "value_floats":
                return np.array(value, np.float32)
            case "value_int" | "value_ints":
                return np.array(value, np.int64)
            case "value_string" | "value_strings":
                return np.array(value, dtype=object)
    raise ModelError(f"{where} has no value", hint="export the model again")
