"""Operators that find as many elements as the data has of a kind are run once for equal inputs.

    n = NonZero(x)                     n = NonZero(x)
    m = NonZero(x)           ->        m = Identity(n)

Exporters write one for each use of a mask. Each would get a size of its own, and two tensors whose
sizes have other names are never found to be the same later.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence

from onnx import NodeProto, helper

from . import graph as graphs

FINDING = ("Compress", "NonMaxSuppression", "NonZero", "Unique")
RANDOM = ("Bernoulli", "Dropout", "Multinomial")
"""Beside those that begin with "Random"."""


def merged(nodes: Sequence[NodeProto]) -> list[NodeProto]:
    """`nodes`, in order of computation, in which what finds the same as one before is that one."""
    if sum(graphs.core_op(node) in FINDING for node in nodes) < 2:
        return list(nodes)
    kept: list[NodeProto] = []
    same: dict[str, str] = {}
    first: dict[Hashable, NodeProto] = {}
    for node in nodes:
        op, key = graphs.core_op(node), _key(node, same)
        before = first.setdefault(key, node) if key else node
        if before is not node:
            same.update(zip(node.output, before.output))
        elif op == "Identity":
            same[node.output[0]] = same.get(node.input[0], node.input[0])
        if before is node or op not in FINDING:
            kept.append(node)
        else:
            pairs = [pair for pair in zip(before.output, node.output) if all(pair)]
            kept += [helper.make_node("Identity", [old], [new], node.name) for old, new in pairs]
    return kept


def _key(node: NodeProto, same: Mapping[str, str]) -> Hashable:
    """What equal nodes have in common; None for one that equals none."""
    op = graphs.core_op(node)
    if not op or op in RANDOM or op.startswith("Random") or any(graphs.subgraphs(node)):
        return None
    inputs = tuple(same.get(name, name) for name in node.input)
    values = sorted(attribute.SerializeToString() for attribute in node.attribute)
    return op, inputs, tuple(map(bool, node.output)), *values
