"""A virtual tensor as one TIR kernel: the loader of one operand, or the copy that is left."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import tvm
import tvm_ffi
from tvm import relax, sym, te, tirx

from tvmext.frontends.dims import names_of

from ..indexing import position
from .piece import Fill, Guard, Lookup, Piece, local
from .prims import Prims, to_prim
from .scope import Size
from .tensor import VirtualTensor

INJECTIVE = 2
"""OpPatternKind: every output element reads one input element, so consumers may fuse it."""

OPERATORS = "tvmext.operators"
"""Attribute of a loader: the movement operators that it stands for, with commas between them."""

APART = "tvmext.apart"
"""Attribute of a loader that no other kernel takes in."""

OPAQUE = 8
"""OpPatternKind: never fused."""

VIEW = "tvmext.view"
"""Attribute of a function that only reshapes its argument."""


def loader(
    builder: relax.BlockBuilder,
    tensor: VirtualTensor,
    homes: Mapping[str, relax.Expr],
    prims: Prims,
    dtype: str,
    operators: Sequence[str],
    select: bool = False,
    apart: bool = False,
    view: bool = False,
) -> relax.Call:
    """A ``call_tir`` that computes the tensor from its homes; the function is added to the module.

    `homes` are expressions by name of home. `dtype` is the element type of the result. `operators`
    are the movement operators that the kernel stands for. With `select`, pieces that are rows of
    one home become one read at a selected index. A loader that is `apart` is not fused. One that is
    a `view` is turned into one by `views.Views` if it is still alone then.
    """
    name = "view" if view else _name(operators)
    inputs = [homes[home.name] for home in tensor.homes]
    symbols = sorted(_symbols(tensor))
    dims = relax.ShapeExpr(prims.variables(symbols))

    def compute(buffers: list[te.Tensor], sizes: Sequence[Any]) -> te.Tensor:
        kernel = _Kernel(tensor, buffers, dict(zip(symbols, sizes)), dtype, select)
        return te.compute(kernel.shape, lambda *point: kernel.element(*point), name=name)

    # FuseOps needs not guess: it would take a lookup for opaque.
    attrs = {"op_pattern": INJECTIVE, **({VIEW: 1} if view else {OPERATORS: ",".join(operators)})}
    if apart:
        attrs |= {"op_pattern": OPAQUE, APART: 1}
    return builder.call_te(compute, inputs, dims, primfunc_name_hint=name, primfunc_attrs=attrs)


def view(builder: relax.BlockBuilder, source: relax.Expr, shape: Sequence[Any]) -> relax.Call:
    """A reshape as a ``call_tir`` that FuseOps leaves alone and `views.Views` turns into a view.

    Whoever takes it into a kernel after all finds indices without the dims that stay as they are.
    """
    return builder.call_te(
        _reshaped,
        source,
        relax.ShapeExpr(list(shape)),
        primfunc_name_hint="view",
        primfunc_attrs={"op_pattern": OPAQUE, VIEW: 1},
    )


def _reshaped(source: te.Tensor, shape: Sequence[Any]) -> te.Tensor:
    """The elements in the same order; only dims between equal first and last ones are regrouped."""
    old, new = list(source.shape), list(shape)
    equal = sym.Analyzer().can_prove_equal
    most = min(len(old), len(new))
    first = next((k for k in range(most) if not equal(old[k], new[k])), most)
    most -= first
    last = next((k for k in range(most) if not equal(old[-1 - k], new[-1 - k])), most)

    def element(*at: Any) -> Any:
        flat: Any = tirx.IntImm("int64", 0)
        for index, size in zip(at[first : len(new) - last], new[first:]):
            flat = flat * size + index
        inner: list[Any] = []
        for size in reversed(old[first + 1 : len(old) - last]):
            inner.insert(0, tirx.floormod(flat, size))
            flat = tirx.floordiv(flat, size)
        outer = [flat] if first < len(old) - last else []
        return source[(*at[:first], *outer, *inner, *at[len(new) - last :])]

    return te.compute(tuple(new), element, name="T_reshape")


def _name(operators: Sequence[str]) -> str:
    """A kernel name that tells what it does, such as "reshape_permute_dims"."""
    *first, last = operators
    names = [*first[:2], last] if len(first) > 2 else [*first, last]
    return "_".join(name.replace(".", "_") for name in names)


def _symbols(tensor: VirtualTensor) -> set[str]:
    """The dims that the shape and the maps mention."""
    values: list[Size] = [*tensor.shape]
    for piece in tensor.pieces:
        values += [*piece.origin, *piece.extent, *piece.index]
        for guard in piece.guards:
            values += [guard.value, guard.low, guard.high]
        for lookup in piece.lookups:
            values += [*lookup.index, lookup.extent]
    names = {name for value in values for name in names_of(value)}
    return {name for name in names if not name.startswith("_")}


class _Kernel:
    """Writes one virtual tensor in TVM's tensor expressions."""

    def __init__(
        self,
        tensor: VirtualTensor,
        buffers: Sequence[te.Tensor],
        sizes: Mapping[str, Any],
        dtype: str,
        select: bool,
    ) -> None:
        self.tensor = tensor
        self.select = select
        self.buffers = {home.name: buffer for home, buffer in zip(tensor.homes, buffers)}
        self.sizes = sizes
        self.dtype = dtype
        self.shape = [to_prim(size, sizes) for size in tensor.shape]

    def element(self, *point: tirx.Var) -> tvm.ir.Expr:
        """The value at an index: the last piece, which takes what is left, then those before it."""
        if not self.tensor.pieces:  # no element
            return tirx.const(0, self.dtype)
        values = {**self.sizes, **{f"_x{k}": index for k, index in enumerate(point)}}
        *earlier, last = self.tensor.pieces
        boxes = _boxes(earlier, self.tensor.shape)
        if self.select and self._rows_of_one_home(boxes):
            return self._selected(boxes, values)
        result = self._value(last, [], values, None)
        for piece, box in reversed(list(zip(earlier, boxes))):
            result = self._value(piece, box, values, result)
        return result

    def _rows_of_one_home(self, boxes: Sequence[Sequence[Guard]]) -> bool:
        """Whether pieces of one home differ only in which of its rows they read."""
        pieces = self.tensor.pieces
        same = len(pieces) > 1 and len({p.home for p in pieces}) == 1
        plain = not any(p.lookups or isinstance(p.home, Fill) for p in pieces)
        last = f"_x{self.tensor.rank - 1}"
        guards = [g for p, box in zip(pieces, boxes) for g in (*p.guards, *box)]
        return same and plain and all(last not in names_of(guard.value) for guard in guards)

    def _selected(self, boxes: Sequence[Sequence[Guard]], values: Mapping[str, Any]) -> tvm.ir.Expr:
        """One read, at an index that is chosen: what reads it in a loop chooses once per row."""
        *earlier, last = self.tensor.pieces
        chosen = self._index(last, values)
        for piece, box in reversed(list(zip(earlier, boxes))):
            near = {**values, **self._moved(piece, values)}
            inside = tirx.all(
                *(c for guard in box for c in _conditions(guard, values)),
                *(c for guard in piece.guards for c in _conditions(guard, near, piece)),
            )
            chosen = [
                one if tvm_ffi.structural_equal(one, other) else tirx.Select(inside, one, other)
                for one, other in zip(self._index(piece, values), chosen)
            ]
        return self.buffers[last.home.name][tuple(chosen)]  # type: ignore[union-attr]

    def _index(self, piece: Piece, values: Mapping[str, Any]) -> list[Any]:
        return [to_prim(i, {**values, **self._moved(piece, values)}) for i in piece.index]

    def _moved(self, piece: Piece, values: Mapping[str, Any]) -> dict[str, Any]:
        """The local coordinates of a piece that differ from those of the tensor."""
        return {
            f"_x{axis}": values[f"_x{axis}"] - to_prim(origin, values)
            for axis, origin in enumerate(piece.origin)
            if origin != 0
        }

    def _value(
        self,
        piece: Piece,
        box: Sequence[Guard],
        values: Mapping[str, Any],
        other: tvm.ir.Expr | None,
    ) -> tvm.ir.Expr:
        """The piece's element where its conditions hold, else `other`."""
        inside = [condition for guard in box for condition in _conditions(guard, values)]
        local_values = {**values, **self._moved(piece, values)}
        return self._guarded(piece, piece.steps, inside, local_values, other)

    def _guarded(
        self,
        piece: Piece,
        steps: Sequence[Guard | Lookup],
        conditions: list[Any],
        values: Mapping[str, Any],
        other: tvm.ir.Expr | None,
    ) -> tvm.ir.Expr:
        """Conditions up to the first lookup, then what is left below it: they protect it."""
        for k, step in enumerate(steps):
            if isinstance(step, Lookup):
                known = {**values, step.name: self._looked_up(step, values)}
                inner = self._guarded(piece, steps[k + 1 :], [], known, other)
                break
            if other is not None:
                conditions = conditions + _conditions(step, values, piece)
        else:
            inner = self._read(piece, values)
        if other is None or not conditions:
            return inner
        return tirx.if_then_else(tirx.all(*conditions), inner, other)

    def _read(self, piece: Piece, values: Mapping[str, Any]) -> tvm.ir.Expr:
        if isinstance(piece.home, Fill):
            return tirx.const(piece.home.value, self.dtype)
        return self.buffers[piece.home.name][tuple(to_prim(i, values) for i in piece.index)]

    def _looked_up(self, lookup: Lookup, values: Mapping[str, Any]) -> tvm.ir.Expr:
        index = tuple(to_prim(i, values) for i in lookup.index)
        found = self.buffers[lookup.home.name][index]
        return position(found, to_prim(lookup.extent, values), lookup.mode)


def _boxes(pieces: Sequence[Piece], shape: Sequence[Size]) -> list[list[Guard]]:
    """For each piece, that an index is in its box, without what earlier pieces settle.

    Where pieces that span all other axes follow one another along an axis, an index that none of
    them took is not below their end.
    """
    ends: list[Size] = [0] * len(shape)
    boxes = []
    for piece in pieces:
        box: list[Guard] = []
        for axis, (origin, extent) in enumerate(zip(piece.origin, piece.extent)):
            low = 0 if origin == ends[axis] else origin
            if low != 0 or origin + extent != shape[axis]:
                box.append(Guard(local(axis), low, origin + extent))
        if not piece.guards and len(box) == 1 and box[0].low == 0:
            axis = int(str(box[0].value)[2:])
            ends[axis] = box[0].high
        boxes.append(box)
    return boxes


def _conditions(guard: Guard, values: Mapping[str, Any], piece: Piece | None = None) -> list[Any]:
    """``low <= value`` and ``value < high``, as far as they are not certain.

    Without a piece, the guard is on an index, which is never negative.
    """
    value = to_prim(guard.value, values)
    certain = piece.scope.proves(guard.value - guard.low) if piece else guard.low == 0
    low = [] if certain else [to_prim(guard.low, values) <= value]
    if piece and piece.scope.proves(guard.high - 1 - guard.value):
        return low
    return [*low, value < to_prim(guard.high, values)]
