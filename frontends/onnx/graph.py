"""Walks over ONNX graphs: attributes, what a node reads, order of computation."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, helper

from tvmext.errors import ModelError

STANDARD_DOMAINS = ("", "ai.onnx")


def domain_of(node: NodeProto) -> str:
    """The node's domain; "" for ONNX's own under either of its two names."""
    return "" if node.domain in STANDARD_DOMAINS else node.domain


def core_op(node: NodeProto) -> str:
    """The operator if it is one of ONNX's own domain; "" for one of that name in another."""
    return "" if domain_of(node) else node.op_type


def opsets(model: ModelProto) -> dict[str, int]:
    """{domain: version} of the operator sets that the model imports."""
    return {
        "" if entry.domain in STANDARD_DOMAINS else entry.domain: entry.version
        for entry in model.opset_import
    }


def attributes(node: NodeProto) -> dict[str, Any]:
    """{name: value}; strings are decoded, tensors and graphs stay protos."""
    return {attribute.name: _plain(attribute) for attribute in node.attribute}


def _plain(attribute: AttributeProto) -> Any:
    value = helper.get_attribute_value(attribute)
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if attribute.type == AttributeProto.STRINGS:
        return [text.decode("utf-8", "replace") for text in value]
    return value


def subgraphs(node: NodeProto) -> Iterator[GraphProto]:
    """The bodies of an If, Loop, Scan and the like."""
    for attribute in node.attribute:
        if attribute.type == AttributeProto.GRAPH:
            yield attribute.g
        elif attribute.type == AttributeProto.GRAPHS:
            yield from attribute.graphs


def all_nodes(graph: GraphProto) -> Iterator[NodeProto]:
    """The nodes of a graph and of the bodies in it."""
    for node in graph.node:
        yield node
        for body in subgraphs(node):
            yield from all_nodes(body)


def reads(node: NodeProto) -> set[str]:
    """Names of the values a node needs, the captures of its subgraphs included."""
    names = {name for name in node.input if name}
    for body in subgraphs(node):
        names |= captures(body)
    return names


def captures(graph: GraphProto) -> set[str]:
    """Names that a subgraph takes from the graphs around it."""
    own = {value.name for value in graph.input} | {tensor.name for tensor in graph.initializer}
    needed = {output.name for output in graph.output}
    for node in graph.node:
        needed |= reads(node)
        own.update(node.output)
    return needed - own


def label(node: NodeProto) -> str:
    """How messages name a node: its name, or its first output."""
    return node.name or next((name for name in node.output if name), "?")


def in_order(nodes: Sequence[NodeProto], source: str) -> list[NodeProto]:
    """Nodes so that each comes after what it reads, otherwise as given.

    Raises ModelError that names the nodes of a cycle.
    """
    producer = {name: index for index, node in enumerate(nodes) for name in node.output if name}
    waits = [{producer[name] for name in reads(node) if name in producer} for node in nodes]
    if all(max(deps, default=-1) < index for index, deps in enumerate(waits)):
        return list(nodes)
    readers: dict[int, list[int]] = {}
    for index, deps in enumerate(waits):
        for dep in deps:
            readers.setdefault(dep, []).append(index)
    ready = [index for index, deps in enumerate(waits) if not deps]
    order: list[int] = []
    for index in ready:  # grows while it is walked
        order.append(index)
        for reader in readers.get(index, ()):
            waits[reader].discard(index)
            if not waits[reader]:
                ready.append(reader)
    if len(order) < len(nodes):
        raise _cycle_error(
            [index for index, deps in enumerate(waits) if deps], waits, nodes, source
        )
    return [nodes[index] for index in order]


def _cycle_error(
    stuck: Iterable[int], waits: list[set[int]], nodes: Sequence[NodeProto], source: str
) -> ModelError:
    index, seen = next(iter(stuck)), []
    while index not in seen:
        seen.append(index)
        index = next(iter(waits[index]))
    ring = [label(nodes[step]) for step in seen[seen.index(index) :]]
    return ModelError(
        f"'{source}' has a cycle: {' <- '.join([*ring[:6], ring[0]])}",
        hint="an ONNX graph has no cycles; use Loop or Scan, or export the model again",
    )


def live(nodes: Sequence[NodeProto], wanted: Iterable[str]) -> list[NodeProto]:
    """The nodes, in order, that `wanted` depends on; `nodes` must be in order of computation."""
    needed, kept = set(wanted), []
    for node in reversed(nodes):
        if any(name in needed for name in node.output):
            kept.append(node)
            needed |= reads(node)
    return kept[::-1]
