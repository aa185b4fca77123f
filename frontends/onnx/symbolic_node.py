"""What a rule of symbolic propagation sees: one node with the values of its inputs."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, cast

import numpy as np
from onnx import NodeProto, TensorProto, helper

from ..dims import Expr
from .symbolic_facts import Facts
from .symbolic_numbers import Arithmetic, Number, is_size

MAX_ELEMENTS = 256
"""Elements are tracked for tensors of at most this many."""
MAX_RANK = 64
"""A tensor may have this many dims, as in NumPy: passes look at every pair of them."""
MAX_SIZE = (1 << 31) - 1
"""The largest dim: some of TVM's operators count in 32 bits."""
MAX_COUNT = 1 << 48
"""A tensor may have this many elements: more would not be memory."""
TRACKED = frozenset(
    {"bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"}
    | {"float16", "float32", "float64"}
)
"""Dtypes whose elements are tracked."""

Size = int | Expr
Shape = tuple[Size, ...]


@dataclass(frozen=True, eq=False)
class Value:
    """What is known of a tensor before the run.

    `dtype` is a NumPy dtype name, "str" for strings, "" if unknown or not a tensor. `shape` is None
    where the rank is unknown. `data`, an object array of that shape, holds the elements: bool, int,
    float or Expr (in a float tensor: an integral float).
    """

    dtype: str
    shape: Shape | None
    data: np.ndarray | None = None

    def __str__(self) -> str:
        dims = "?" if self.shape is None else ", ".join(map(str, self.shape))
        return f"{self.dtype or '?'}[{dims}]"


class Node:
    """One node, its attributes and the values of its inputs; builds the values of its outputs."""

    def __init__(
        self, proto: NodeProto, inputs: Sequence[Value | None], facts: Facts, opset: int
    ) -> None:
        self.proto = proto
        self.inputs = inputs
        self.facts = facts
        self.opset = opset
        self.op_type = proto.op_type

    @cached_property
    def where(self) -> str:
        """The node as messages name it."""
        name = self.proto.name or (self.proto.output[0] if self.proto.output else "")
        return f"{self.proto.op_type} '{name}'"

    @cached_property
    def _attributes(self) -> dict[str, Any]:
        return {a.name: helper.get_attribute_value(a) for a in self.proto.attribute}

    def attr(self, name: str, default: Any = None) -> Any:
        """An attribute; bytes are decoded."""
        value = self._attributes.get(name, default)
        return value.decode() if isinstance(value, bytes) else value

    def input(self, k: int) -> Value | None:
        """Input k; None if it is left out."""
        return self.inputs[k] if k < len(self.inputs) else None

    def shape(self, k: int = 0) -> Shape | None:
        """Shape of input k, None if it is left out or its rank is unknown."""
        value = self.input(k)
        return value.shape if value is not None else None

    def shapes(self) -> list[Shape] | None:
        """The shapes of all inputs, None unless the rank of each is known."""
        shapes = [value.shape for value in self.inputs if value is not None]
        known = [shape for shape in shapes if shape is not None]
        return known if known and len(known) == len(self.inputs) else None

    def dtype(self, k: int = 0) -> str:
        """Dtype of input k, "" if it is left out."""
        value = self.input(k)
        return value.dtype if value is not None else ""

    def elements(self, k: int) -> list[Number] | None:
        """Elements of input k in order, None if they are not tracked; each may be None."""
        value = self.input(k)
        return None if value is None or value.data is None else list(value.data.flat)

    def sizes(self, k: int, attribute: str = "") -> list[Size] | None:
        """Elements of an integer input, or of the attribute that older opsets have in its place.

        None unless all are known.
        """
        if attribute and self.attr(attribute) is not None:
            return list(self.attr(attribute))
        found = self.elements(k)
        known = found is not None and all(map(is_size, found))
        return cast("list[Size]", found) if known else None

    def ints(self, k: int, attribute: str = "") -> list[int] | None:
        """Like `sizes`, but None unless all are constant."""
        found = self.sizes(k, attribute)
        constant = found is not None and all(isinstance(x, int) for x in found)
        return cast("list[int]", found) if constant else None

    def axis(self, default: int, rank: int) -> int:
        """The attribute `axis`, counted from the front."""
        return self.attr("axis", default) % rank if rank else 0

    def arithmetic(self, dtype: str) -> Arithmetic:
        return Arithmetic(dtype, self.facts, self.where)

    def value(
        self, dtype: str, shape: Iterable[Size] | None, data: Iterable[Number] | None = None
    ) -> Value:
        """An output; dims and elements are simplified, elements dropped where too many."""
        if shape is None:
            return Value(dtype, None)
        dims = tuple(map(self.facts.simplify, shape))
        return Value(dtype, dims, self._data(dtype, dims, data))

    def _data(self, dtype: str, shape: Shape, data: Iterable[Number] | None) -> np.ndarray | None:
        sizes = constant_shape(shape)
        if data is None or dtype not in TRACKED or sizes is None:
            return None
        elements = data.flat if isinstance(data, np.ndarray) else data
        known = [self.facts.simplify(x) if isinstance(x, Expr) else x for x in elements]
        return None if known and all(x is None for x in known) else array(known, sizes)

    def unknown(self, axis: int, output: int = 0) -> Expr:
        """A size that only the run knows."""
        return self.facts.unknown(self.proto.output[output], axis)

    def broadcast(self, *shapes: Shape) -> Shape:
        """NumPy's broadcasting; two dims that may differ are taken as equal (a soft equation)."""
        rank = max(map(len, shapes), default=0)
        result: list[Size] = [1] * rank
        for shape in shapes:
            for k, size in enumerate(shape, rank - len(shape)):
                result[k] = self._broadcast_dim(result[k], size)
        return tuple(result)

    def _broadcast_dim(self, a: Size, b: Size) -> Size:
        if a == 1 or b == 1:
            return b if a == 1 else a
        known = self.facts.equal(a, b)
        if known is None:
            self.facts.suggest_equal(a, b, self.where)
        elif known is False:
            large = [self.facts.at_least(size, 2) is True for size in (a, b)]
            if all(large):
                self.facts.require_equal(a, b, self.where)  # raises
            if any(large):
                self.facts.require_equal(b if large[0] else a, 1, self.where)
                return a if large[0] else b
        return b if isinstance(b, int) else a


def constant_shape(shape: Iterable[Size] | None) -> tuple[int, ...] | None:
    """The shape, if it is constant and small enough for elements to be tracked."""
    if shape is None:
        return None
    sizes = [size for size in shape if isinstance(size, int)]
    if len(sizes) < len(tuple(shape)) or math.prod(sizes) > MAX_ELEMENTS:
        return None
    return tuple(sizes)


def array(elements: Sequence[Number], shape: Sequence[int]) -> np.ndarray:
    """An object array; NumPy would otherwise look for sequences inside the elements."""
    result = np.empty(len(elements), object)
    for k, element in enumerate(elements):
        result[k] = element
    return result.reshape(shape)


def dtype_name(elem_type: int) -> str:
    """NumPy's name of an ONNX element type, "str" for strings, "" for undefined."""
    if elem_type in (TensorProto.UNDEFINED, TensorProto.STRING):
        return "str" if elem_type else ""
    return np.dtype(helper.tensor_dtype_to_np_dtype(elem_type)).name
