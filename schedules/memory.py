"""What is read and written costs, in cycles of one core, at given sizes of the free dims.

Sizes are numbers or arrays of numbers: a price is a function of the sizes, and arrays give it over
a whole range at once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from tvm import tirx
from tvm.ir import Expr, Var

from tvmext.arch import CpuArch, dtype_bits
from tvmext.frontends.dims import USUAL

from .kernel.analysis import Axis, constant

Amount = Any
"""A number, or an array of them: one for each assignment of sizes."""


@dataclass(frozen=True)
class Memory:
    """The memory of a machine, for kernels whose free dims have `sizes`, by their names.

    A dim that is not among them is one that the data decide: it has the usual size.
    """

    arch: CpuArch
    sizes: Mapping[str, Amount] = field(default_factory=dict)

    def extent(self, expr: Expr) -> Amount:
        """The value of a size."""
        size = constant(expr)
        return self._value(expr) if size is None else size

    def size(self, axes: Iterable[Axis]) -> Amount:
        """The points of a loop nest."""
        return math.prod(self.extent(axis.extent) for axis in axes)

    def elements(self, buffer: Any) -> Amount:
        return math.prod(self.extent(dim) for dim in buffer.shape)

    def bytes(self, buffer: Any, elements: Amount | None = None) -> Amount:
        """Of a buffer, or of some of its elements."""
        count = self.elements(buffer) if elements is None else elements
        return count * dtype_bits(str(buffer.dtype)) / 8

    def passed(self, buffer: Any, elements: Amount | None = None) -> Amount:
        """To read or write a buffer, or some elements of it, from the level that it fits in."""
        size = self.bytes(buffer, elements)
        return size / self._level(size, 32.0, 10.0, self.arch.dram_gb_s / self.arch.ghz)

    def latency(self, buffer: Any) -> Amount:
        """Cycles until a line is there, from the level that a buffer fits in (Zen 4)."""
        return self._level(self.bytes(buffer), 14.0, 50.0, 250.0)

    def _level(self, size: Amount, l2: float, l3: float, far: float) -> Amount:
        """The figure of the level that so many bytes fit in."""
        beyond = np.where(size <= self.arch.l3_bytes / 2, l3, far)
        return np.where(size <= self.arch.l2_bytes / 2, l2, beyond)

    def _value(self, expr: Expr) -> Amount:
        if isinstance(expr, tirx.IntImm):
            return int(expr.value)
        if isinstance(expr, Var):
            return self.sizes.get(expr.name, USUAL)
        if isinstance(expr, tirx.Cast):
            return self._value(expr.value)
        combine = _COMBINE.get(type(expr))
        return USUAL if combine is None else combine(self._value(expr.a), self._value(expr.b))


_COMBINE: dict[type, Callable[[Amount, Amount], Amount]] = {
    tirx.Add: np.add,
    tirx.Sub: np.subtract,
    tirx.Mul: np.multiply,
    tirx.FloorDiv: lambda a, b: np.floor_divide(a, np.maximum(b, 1)),
    tirx.FloorMod: lambda a, b: np.mod(a, np.maximum(b, 1)),
    tirx.Min: np.minimum,
    tirx.Max: np.maximum,
}
