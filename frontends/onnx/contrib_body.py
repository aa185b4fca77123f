"""The nodes of ONNX's own operators that take the place of one of another domain."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NoReturn

import numpy as np
from onnx import NodeProto, helper, numpy_helper

from . import graph as graphs
from .symbolic_node import Shape, Value


class UnwrittenError(Exception):
    """A form of an operator that has no body here: the node stays, and is reported."""


class Body:
    """The nodes that take the place of one.

    `values` are what symbolic shapes say of its inputs. Before there are any it is empty, and a
    body that asks for them is written later.
    """

    def __init__(
        self,
        node: NodeProto,
        constants: Mapping[str, np.ndarray],
        values: Mapping[str, Value] | None = None,
    ) -> None:
        self.node = node
        self.constants = constants
        self.values = values or {}
        self.nodes: list[NodeProto] = []
        self.attributes = graphs.attributes(node)

    def attr(self, name: str, default: Any = None) -> Any:
        return self.attributes.get(name, default)

    def has(self, index: int) -> bool:
        return index < len(self.node.input) and bool(self.node.input[index])

    def wants(self, index: int) -> bool:
        return index < len(self.node.output) and bool(self.node.output[index])

    def input(self, index: int) -> str:
        return self.node.input[index]

    def shape(self, index: int) -> Shape:
        value = self.values.get(self.input(index)) if self.has(index) else None
        return self.unwritten() if value is None or value.shape is None else value.shape

    def fixed(self, index: int, axis: int) -> int:
        """A dim of an input that is known at compile time."""
        size = self.shape(index)[axis]
        return size if isinstance(size, int) else self.unwritten()

    def unwritten(self) -> NoReturn:
        raise UnwrittenError

    def declines(self, *inputs: int) -> None:
        """Refuses these inputs."""
        if any(map(self.has, inputs)):
            raise UnwrittenError

    def name(self) -> str:
        return f"{graphs.label(self.node)}/{self.node.op_type}/{len(self.nodes)}"

    def op(self, op_type: str, *inputs: str, **attributes: Any) -> str:
        """Append a node; returns the name of its result."""
        return self.ops(op_type, 1, *inputs, **attributes)[0]

    def ops(self, op_type: str, count: int, *inputs: str, **attributes: Any) -> list[str]:
        names = [f"{self.name()}_{k}" for k in range(count)]
        self.nodes.append(helper.make_node(op_type, inputs, names, name=self.name(), **attributes))
        return names

    def constant(self, value: Any, dtype: str = "int64") -> str:
        tensor = numpy_helper.from_array(np.asarray(value, dtype))
        return self.op("Constant", value=tensor)

    def real(self, value: Any) -> str:
        """A constant of the dtype that is computed in."""
        return self.constant(value, self.dtype)

    @property
    def dtype(self) -> str:
        """That of input 0, or float32 if it is quantized."""
        dtype = self.values[self.input(0)].dtype
        return "float32" if dtype in ("int8", "uint8") else dtype

    def result(self, index: int, value: str) -> None:
        if self.wants(index):
            output = self.node.output[index]
            self.nodes.append(helper.make_node("Identity", [value], [output], name=self.name()))

    def only(self, *attributes: str) -> None:
        """Refuses other attributes than these."""
        if set(self.attributes) - {*attributes}:
            raise UnwrittenError
