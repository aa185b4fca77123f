"""Sequences and optionals: lists of tensors, which the graph has no more when it is imported.

    SequenceInsert(s, x, k)  =  SequenceConstruct(s[:k], x, s[k:])     SequenceAt(s, k)  =  s[k]
    SplitToSequence(x)       =  SequenceConstruct(Split(x))            SequenceLength(s) =  len(s)

What makes a sequence becomes a SequenceConstruct of its elements, what reads one becomes operators
on tensors, and then nothing reads the SequenceConstruct. An optional is an Optional of a value or
of nothing. A length must be known: where shapes tell it, the node waits until they are known.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from onnx import GraphProto, NodeProto, ValueInfoProto, helper

from ..dims import Expr
from . import graph as graphs
from .sequence_rules import MAX_LENGTH, RULES, identity

if TYPE_CHECKING:
    from .symbolic import Shapes

MADE = frozenset({"SequenceConstruct", "Optional"})
"""What says of which tensors a value consists."""
OPERATORS = MADE | {
    "ConcatFromSequence", "OptionalGetElement", "OptionalHasElement", "SequenceAt",
    "SequenceEmpty", "SequenceErase", "SequenceInsert", "SequenceLength", "SequenceMap",
    "SplitToSequence",
}  # fmt: skip
MAX_NODES = 1 << 14
"""What bodies may become that are written out once per element or iteration."""
MAX_ELEMENTS = 1 << 18
"""Of all sequences together."""


@dataclass
class Known:
    """What is known of tensors so far: constants, and shapes if they were inferred."""

    constants: Mapping[str, np.ndarray]
    shapes: Shapes | None
    versions: Mapping[str, int]

    def shape(self, name: str) -> tuple[int | Expr, ...] | None:
        if name in self.constants:
            return self.constants[name].shape
        value = self.shapes.values.get(name) if self.shapes else None
        return value.shape if value else None

    def is_tensor(self, name: str) -> bool:
        """Whether it is one for sure."""
        value = self.shapes.values.get(name) if self.shapes else None
        return name in self.constants or (value is not None and bool(value.dtype))

    def ints(self, name: str) -> list[int] | None:
        """The elements of a small integer or boolean tensor."""
        if name in self.constants:
            array = self.constants[name]
            fits = array.dtype.kind in "iub" and array.size <= MAX_LENGTH
            return [int(x) for x in array.flat] if fits else None
        value = self.shapes.values.get(name) if self.shapes else None
        if value is None or value.data is None:
            return None
        found = [x for x in value.data.flat if isinstance(x, bool | int)]
        return [int(x) for x in found] if len(found) == value.data.size else None

    def int(self, name: str) -> int | None:
        found = self.ints(name)
        return found[0] if found is not None and len(found) == 1 else None


@dataclass
class Sequences:
    """The sequences and optionals of one walk over a graph."""

    known: Known
    lists: dict[str, list[str]] = field(default_factory=dict)
    optionals: dict[str, str] = field(default_factory=dict)
    """By name: what is in it, "" for nothing."""
    changed: bool = False
    _nodes: int = 0
    _elements: int = 0

    def takes(self, node: NodeProto) -> bool:
        """Whether the node is one for `lower`."""
        op = graphs.core_op(node)
        return op in OPERATORS or (op == "Identity" and self.has(node.input[0]))

    def has(self, name: str) -> bool:
        return name in self.lists or name in self.optionals

    def lower(self, node: NodeProto) -> list[NodeProto] | None:
        """What to put in its place, in order; None if too little is known of its inputs by now."""
        match node.op_type:
            case "SequenceConstruct":
                return self.as_list(node.output[0], node.input)
            case "Optional":
                return self.optional(node.output[0], "".join(node.input))
            case "Identity":
                found = self.alias(*node.input, *node.output)
            case _:
                found = RULES[node.op_type](self, node)
        self.changed |= found is not None
        return found

    def as_list(self, name: str, elements: Sequence[str]) -> list[NodeProto] | None:
        self._elements += len(elements)
        if len(elements) > MAX_LENGTH or self._elements > MAX_ELEMENTS:
            return None
        self.lists[name] = [*elements]
        return [helper.make_node("SequenceConstruct", elements, [name])]

    def optional(self, name: str, inside: str) -> list[NodeProto]:
        self.optionals[name] = inside
        return [helper.make_node("Optional", [inside] if inside else [], [name])]

    def alias(self, old: str, new: str) -> list[NodeProto] | None:
        if old in self.optionals:
            return self.optional(new, self.optionals[old])
        if old in self.lists:
            return self.as_list(new, self.lists[old])
        return [identity(old, new)] if self.known.is_tensor(old) else None

    def may_write(self, body: GraphProto, times: int = 1) -> bool:
        """Whether a body may be written out so often again; counts it."""
        self._nodes += times * (1 + len(body.node))
        return self._nodes <= MAX_NODES

    def closed(self, node: NodeProto) -> NodeProto:
        """The node with what its bodies take of sequences around them defined inside of them."""
        taken = set().union(*map(graphs.captures, graphs.subgraphs(node)))
        if not any(map(self.has, taken)):
            return node
        copy = NodeProto()
        copy.CopyFrom(node)
        for body in graphs.subgraphs(copy):
            made = [new for name in sorted(graphs.captures(body)) for new in self._definition(name)]
            whole = [*made, *body.node]
            del body.node[:]
            body.node.extend(whole)
        return copy

    def _definition(self, name: str) -> list[NodeProto]:
        if name in self.optionals:
            inside = self.optionals[name]
            return [*self._definition(inside), *self.optional(name, inside)]
        return (self.as_list(name, self.lists[name]) or []) if name in self.lists else []


def with_tensor_outputs(
    nodes: Sequence[NodeProto], outputs: Sequence[ValueInfoProto]
) -> tuple[list[NodeProto], list[ValueInfoProto]]:
    """Elements ``y[0]``, ``y[1]``, .. in the place of outputs that are sequences."""
    makers = {name: n for n in nodes if graphs.core_op(n) in MADE for name in n.output}
    replaced = {value.name for value in outputs} & makers.keys()
    kept = [node for node in nodes if replaced.isdisjoint(node.output)]
    found = []

    def add(name: str, made: str, declared: Any) -> None:
        kind = declared.WhichOneof("value")
        inner = getattr(declared, kind).elem_type if kind in _KINDS else declared
        maker = makers.get(made)
        if maker is None:
            if made != name:
                kept.append(identity(made, name))
            found.append(helper.make_tensor_value_info(name, inner.tensor_type.elem_type, None))
        elif maker.op_type == "Optional":
            for inside in maker.input:
                add(name, inside, inner)
        else:
            for k, element in enumerate(maker.input):
                add(f"{name}[{k}]", element, inner)

    for value in outputs:
        if value.name in makers:
            add(value.name, value.name, value.type)
        else:
            found.append(value)
    return kept, found


def is_waiting(graph: GraphProto) -> bool:
    """Whether nodes are left that shapes may help."""
    for node in graph.node:
        op = graphs.core_op(node)
        if op in OPERATORS - MADE:
            return True
        if op == "Loop" and carries_sequences(graphs.attributes(node)["body"]):
            return True
    return False


def carries_sequences(body: GraphProto) -> bool:
    return any(value.type.WhichOneof("value") in _KINDS for value in [*body.input, *body.output])


_KINDS = ("sequence_type", "optional_type")
