"""ONNX -> ONNX: the same network with less in it.

Functions inlined, constants folded, decided Ifs replaced by their branch, dead nodes dropped, nodes
in order of computation. What is left is what symbolic shapes and the converters have to know.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
from onnx import ModelProto, NodeProto, helper, numpy_helper

from tvmext.errors import ModelError

from . import contrib, duplicates, inline, sequences, tensors, unroll
from . import graph as graphs
from .check import check
from .fold import fold
from .load import Source
from .sequences import Known, Sequences

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
    if source.model.functions:
        source = replace(source, model=inline.own_functions(source.model, source.name))
        check(source)  # the first time that the nodes of their bodies are looked at
    inputs = tuple(v.name for v in source.model.graph.input if v.name not in source.constants)
    model = contrib.expand(source.model, source.constants)
    model = with_constants(model, source.constants, inputs)
    model = inline.schema_functions(model, operators)
    state = _Folding(dict(source.constants), graphs.opsets(model), source.name)
    for node in graphs.in_order(model.graph.node, source.name):
        state.visit(node)
    return finish(model, state.nodes, state.constants, inputs, source.name)


def settle(prepared: Prepared, shapes: Shapes) -> Prepared | None:
    """The graph with what its shapes decide put in: the branch of an If, elements of sequences,
    bodies of operators of other domains that depend on shapes.

    None if they decide nothing.
    """
    decided = _conditions(prepared, shapes)
    nodes, written = contrib.with_shapes(
        prepared.model.graph.node, prepared.constants, shapes.values
    )
    if not decided and not written and not sequences.is_waiting(prepared.model.graph):
        return None
    state = _Folding(dict(prepared.constants), prepared.versions, prepared.name, shapes)
    state.decided = decided
    for node in nodes:
        state.visit(node)
    if not decided and not written and not state.sequences.changed:
        return None
    return finish(prepared.model, state.nodes, state.constants, prepared.inputs, prepared.name)


def _conditions(prepared: Prepared, shapes: Shapes) -> dict[str, bool]:
    """{condition: value} of the Ifs that the sizes decide."""
    found: dict[str, bool] = {}
    conditions = {n.input[0] for n in prepared.model.graph.node if graphs.core_op(n) == "If"}
    for name in conditions & shapes.values.keys():
        data = shapes.values[name].data
        if data is not None and data.size and isinstance(data.flat[0], bool | int):
            found[name] = bool(data.flat[0])
    return found


def with_tensor_outputs(prepared: Prepared) -> Prepared:
    """The graph with the elements in the place of outputs that are sequences or optionals."""
    model = prepared.model
    if not any(graphs.core_op(node) in sequences.MADE for node in model.graph.node):
        return prepared
    flat = ModelProto()
    flat.CopyFrom(model)
    nodes, outputs = sequences.with_tensor_outputs(model.graph.node, model.graph.output)
    del flat.graph.output[:]
    flat.graph.output.extend(outputs)
    return finish(flat, nodes, prepared.constants, prepared.inputs, prepared.name)


def finish(
    model: ModelProto,
    nodes: list[NodeProto],
    constants: dict[str, np.ndarray],
    inputs: tuple[str, ...],
    name: str,
) -> Prepared:
    """Drop dead nodes, duplicates and constants and write the rest into a new model."""
    nodes = duplicates.merged(nodes)
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
        self,
        constants: dict[str, np.ndarray],
        versions: dict[str, int],
        name: str,
        shapes: Shapes | None = None,
    ) -> None:
        self.constants = constants
        self.versions = versions
        self.name = name
        self.nodes: list[NodeProto] = []
        self.decided: dict[str, bool] = {}
        self.sequences = Sequences(Known(constants, shapes, versions))

    def visit(self, node: NodeProto) -> None:
        op = graphs.core_op(node)
        if op == "Constant":
            self.constants[node.output[0]] = _constant(node, self.name)
        elif op == "If" and (taken := self._condition(node)) is not None:
            self._visit_all(inline.branch(node, taken))
        elif self.sequences.takes(node):
            self._lower(node)
        elif op == "Loop" and (steps := unroll.Steps(self.sequences, node)).wanted:
            self._unroll(node, steps)
        elif node.input and all(name in self.constants for name in node.input if name):
            self._fold(node)
        else:
            self.nodes.append(self.sequences.closed(node))

    def _visit_all(self, nodes: Sequence[NodeProto]) -> None:
        for node in graphs.in_order(nodes, self.name):
            self.visit(node)

    def _lower(self, node: NodeProto) -> None:
        """A node on sequences, if enough is known; else it stays for when more is."""
        found = self.sequences.lower(node)
        for new in [node] if found is None else found:
            if found is None or new.op_type in sequences.MADE:
                self.nodes.append(self.sequences.closed(new))
            else:
                self.visit(new)

    def _unroll(self, node: NodeProto, steps: unroll.Steps) -> None:
        """One iteration after the other; the Loop stays if it turns out that one is undecided."""
        before, changed = len(self.nodes), self.sequences.changed
        while steps.goes_on():
            self._visit_all(steps.next())
        end = steps.end()
        if end is None:
            del self.nodes[before:]
            self.sequences.changed = changed
            self.nodes.append(self.sequences.closed(node))
        else:
            self.sequences.changed = True
            self._visit_all(end)

    def _condition(self, node: NodeProto) -> bool | None:
        name = node.input[0]
        if name in self.constants:
            value = self.constants[name]
            if value.size != 1:
                raise ModelError(
                    f"the condition of node '{graphs.label(node)}' has {value.size} elements",
                    hint="export the model again",
                )
            return bool(value.reshape(-1)[0])
        return self.decided.get(name)

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
