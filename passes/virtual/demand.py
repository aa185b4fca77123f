"""Which elements of a value anybody reads: a box of each, from the outputs of a block back.

    y = matmul(x, w); z = y[:, 0]          only y[:, 0:1] is read, and of x only x[:, 0:1]

Movement operators pass a box on through their maps, others if they can compute a part of their
result alone (rows.py). Whoever else reads a value reads all of it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from tvm import relax

from ..constants import constant_values
from .piece import Home, local
from .prims import Prims, UnmappedError
from .rows import Box, Interval, operands, rows_of, whole
from .rules import rule_of
from .scope import Scope, Size
from .tensor import VirtualTensor, physical

SELECTING = frozenset(
    f"relax.{name}" for name in ("strided_slice", "dynamic_strided_slice", "split", "take")
)
"""Movement operators that may leave out elements though all of their result is read."""


class Demand:
    """What is read of each variable of a block, and by how many."""

    def __init__(self, block: relax.DataflowBlock) -> None:
        self.prims = Prims()
        self.values = {binding.var: binding.value for binding in block.bindings}
        self.boxes: dict[relax.Var, Box] = {}
        self.readers: dict[relax.Var, int] = {}
        for var, value in reversed(self.values.items()):
            if not isinstance(var, relax.DataflowVar):
                self._read_whole([var])
            try:
                self._pass_on(var, value)
            except UnmappedError:
                self._read_whole(_variables(value))

    def part(self, var: relax.Var) -> Box | None:
        """The part of a variable that is read, if its operator can compute that alone.

        Only floats: what stands in for the others is 0, by which integers must not be divided.
        """
        rows, read = rows_of(self.values[var]), self.boxes.get(var)
        if not rows or read is None or not str(var.ty.dtype).startswith("float"):
            return None
        shape = self.prims.shape(var.ty)
        box = tuple(
            interval if axis in rows and _can_stand_apart(interval, size) else (0, size)
            for axis, (interval, size) in enumerate(zip(read, shape, strict=True))
        )
        same = box == whole(shape) or operands(self.values[var], box, self.prims) is None
        return None if same else box

    def _pass_on(self, var: relax.Var, value: Any) -> None:
        """Notes what a binding reads."""
        box = self.boxes.get(var)
        if isinstance(value, relax.TupleGetItem) and value.tuple_value in self.values:
            split = self.values[value.tuple_value]
            if _is_split(split) and box is not None:
                self._pass_through(split, box, int(value.index))
                return
        if _is_split(value) and var not in self.readers:
            return  # whoever reads one of its results has said what it reads
        if box is not None and rule_of(value):
            self._pass_through(value, box)
        elif box is not None and (part := self.part(var)) is not None:
            for place, read in operands(value, part, self.prims) or ():
                if isinstance(value.args[place], relax.Var):
                    self._read(value.args[place], read)
        else:
            self._read_whole(_variables(value))

    def _pass_through(self, call: relax.Call, box: Box, item: int | None = None) -> None:
        """Notes what a movement operator reads for a box of its result, or of one of them."""
        ty = call.ty if item is None else call.ty.fields[item]
        rule = rule_of(call)
        if rule is None or (box == whole(self.prims.shape(ty)) and call.op.name not in SELECTING):
            self._read_whole(_variables(call))
            return
        reader = _Operands(self.prims, self.values)
        made = rule(call, reader)
        tensor = made if isinstance(made, VirtualTensor) else made[item or 0]
        index = [begin + local(axis) for axis, (begin, _) in enumerate(box)]
        for piece in tensor.remap([extent for _, extent in box], index).pieces:
            looked_up = (reader.homes[lookup.home.name] for lookup in piece.lookups)
            self._read_whole(expr for expr in looked_up if isinstance(expr, relax.Var))
            if isinstance(piece.home, Home):
                source = reader.homes[piece.home.name]
                bounds = [_interval(*piece.scope.bounds(at)) for at in piece.index]
                sides = zip(bounds, piece.home.shape, strict=True)
                if isinstance(source, relax.Var):
                    self._read(source, tuple(found or (0, size) for found, size in sides))

    def _read_whole(self, variables: Iterable[relax.Var]) -> None:
        for var in dict.fromkeys(variables):
            self._read(var, None)

    def _read(self, var: relax.Var, box: Box | None) -> None:
        """Notes a reader of a box, as far as that is known to lie within the variable."""
        self.readers[var] = self.readers.get(var, 0) + 1
        sizes = self._shape(var)
        if sizes is None:
            return
        box = whole(sizes) if box is None else box
        sides = zip(box, sizes, strict=True)
        inside = tuple(one if _within(one, size) else (0, size) for one, size in sides)
        self.boxes[var] = tuple(map(_hull, self.boxes.get(var, inside), inside, sizes))

    def _shape(self, var: relax.Var) -> tuple[Size, ...] | None:
        try:
            return self.prims.shape(var.ty)
        except UnmappedError:
            return None


def _is_split(value: Any) -> bool:
    return isinstance(value, relax.Call) and value.op.name == "relax.split"


def _can_stand_apart(interval: Interval, size: Size) -> bool:
    """Whether a part of an axis can be put back into the axis by an operator (narrow.py)."""
    return interval[1] == 1 or all(isinstance(n, int) for n in (*interval, size))


def _interval(low: Size | None, high: Size | None) -> Interval | None:
    return None if low is None or high is None else (low, high - low + 1)


def _within(interval: Interval, size: Size) -> bool:
    begin, extent = interval
    known = Scope({})
    return known.proves(begin) and known.proves(extent - 1) and known.proves(size - begin - extent)


def _hull(one: Interval, other: Interval, size: Size) -> Interval:
    """What holds both; everything where it is not known which comes first."""
    if one == other:
        return one
    known = [n for n in (*one, *other) if isinstance(n, int)]
    if len(known) < 4:
        return 0, size
    a, m, b, n = known
    return min(a, b), max(a + m, b + n) - min(a, b)


class _Operands:
    """What rules read their arguments through: all of them are in memory."""

    def __init__(self, prims: Prims, values: dict[relax.Var, Any]) -> None:
        self.prims = prims
        self.known = values
        self.homes: dict[str, relax.Expr] = {}

    def tensor(self, expr: relax.Expr) -> VirtualTensor:
        name = f"#{len(self.homes)}"
        self.homes[name] = expr
        return physical(name, self.prims.shape(expr.ty))

    stored = tensor

    def values(self, expr: relax.Expr) -> np.ndarray | None:
        found = constant_values([expr], self.known.get)
        return found[0] if found else None


def _variables(value: Any) -> list[relax.Var]:
    found: list[relax.Var] = []
    relax.analysis.post_order_visit(
        value, lambda e: found.append(e) if isinstance(e, relax.Var) else None
    )
    return found
