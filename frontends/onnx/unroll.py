"""Loops over sequences, written out: one copy of the body per iteration, their number known."""

from __future__ import annotations

import numpy as np
from onnx import NodeProto, helper

from . import graph as graphs
from . import inline
from .sequence_rules import MAX_LENGTH, constant, identity
from .sequences import Sequences, carries_sequences


class Steps:
    """The iterations of a Loop, in order, while its condition is known.

    v0, c0 = the inputs of the node;    c(k+1), v(k+1), row(k) = body(k, c(k), v(k))
    """

    def __init__(self, sequences: Sequences, node: NodeProto) -> None:
        self._sequences = sequences
        self._node = node
        self._body = graphs.attributes(node)["body"]
        limit, self._condition, *self._values = node.input
        self._limit = sequences.known.int(limit) if limit else MAX_LENGTH + 1
        self._number = 0
        self._rows: list[list[str]] = [[] for _ in node.output[len(self._values) :]]
        self._prefix = next(filter(None, node.output), node.name)

    @property
    def wanted(self) -> bool:
        """Whether it carries sequences, or reads one around it."""
        read = graphs.reads(self._node)
        return carries_sequences(self._body) or any(map(self._sequences.has, read))

    @property
    def _state(self) -> int | None:
        """1 if there is another iteration, 0 if not, None if that is not known."""
        if self._limit is None or self._number >= self._limit:
            return None if self._limit is None else 0
        return self._sequences.known.int(self._condition) if self._condition else 1

    def goes_on(self) -> bool:
        return (
            self._state == 1 and self._number < MAX_LENGTH and self._sequences.may_write(self._body)
        )

    def next(self) -> list[NodeProto]:
        """The nodes of the next iteration."""
        at = f"{self._prefix}/{self._number}"
        nodes = [constant(f"{at}/number", np.int64(self._number))]
        if not self._condition:
            self._condition = f"{at}/true"
            nodes.append(constant(self._condition, np.bool_(True)))
        outputs = [f"{at}/result/{k}" for k in range(len(self._body.output))]
        inputs = [f"{at}/number", self._condition, *self._values]
        nodes += inline.body(self._body, at, inputs, outputs)
        carried = 1 + len(self._values)
        self._condition, self._values = outputs[0], outputs[1:carried]
        for rows, name in zip(self._rows, outputs[carried:]):
            rows.append(name)
        self._number += 1
        return nodes

    def end(self) -> list[NodeProto] | None:
        """What gives the results of the Loop; None if not all iterations are known."""
        if self._state != 0 or (self._rows and not self._number):
            return None
        outputs = self._node.output
        nodes = [identity(old, new) for old, new in zip(self._values, outputs) if new]
        for rows, name in zip(self._rows, outputs[len(self._values) :]):
            if name:
                nodes.append(helper.make_node("SequenceConstruct", rows, [f"{name}/steps"]))
                nodes.append(joined(f"{name}/steps", name))
        return nodes


def joined(sequence: str, name: str) -> NodeProto:
    return helper.make_node("ConcatFromSequence", [sequence], [name], axis=0, new_axis=1)
