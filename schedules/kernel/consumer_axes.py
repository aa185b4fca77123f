"""The axes of what consumes a sum, as axes of the sum: one element for one, or not.

A reshape may have merged axes of the sum into one of the consumer, or cut one into two.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tvm import tirx
from tvm.ir import Expr, TensorLoad, Var
from tvm_ffi import structural_equal

from .analysis import Block, analyzer, constant


def consumer_axes(
    block: Block,
    known: Mapping[Var, Expr],
    at: Mapping[Var, tuple[Expr, ...]],
    splits: Mapping[Var, tuple[int, int]],
) -> dict[Var, Expr] | None:
    """The axes of a consumer as axes of the sum, or None if it is not one element for one."""
    units = {axis.var for axis in block.axes if axis.size == 1}
    mapping: dict[Var, Expr] = dict.fromkeys(units, _index(0))

    def agrees(found: Mapping[Var, Expr]) -> bool:
        fits = all(structural_equal(mapping.get(var, to), to) for var, to in found.items())
        mapping.update(found)
        return fits

    for load in block.loads:
        if load.source not in known:
            continue
        merged, dims = merged_axes(load, at[load.source], block)
        if not agrees(merged):
            return None
        axes = zip(load.indices, at[load.source], load.source.shape)
        for index, own, dim in (axis for d, axis in enumerate(axes) if d not in dims):
            if not isinstance(own, Var) and constant(own) is None and not _whole(index, dim, block):
                return None  # a part of an axis that is split: `_narrow` knows of whole axes
            if isinstance(index, Var) and index not in units:
                if not agrees({index: own}):
                    return None
            elif parts := _parts(index, own, block, splits):
                if not agrees(parts):
                    return None
            elif index not in units and constant(index) != 0:
                return None
    return mapping if len(mapping) == len(block.axes) else None


def merged_axes(
    load: TensorLoad, at: Sequence[Expr], block: Block
) -> tuple[dict[Var, Expr], frozenset[int]]:
    """``{r: (a*B + b)*C + c}`` and these dims, for indices ``r // C // B, r // C % B, r % C``

    where the axis r of the consumer runs over all of the axes a, b, c: a reshape merged them.
    """
    dims, ana = load.source.shape, analyzer(())
    for last in range(len(dims) - 1, 0, -1):
        digit = load.indices[last]
        if not isinstance(digit, tirx.FloorMod) or not isinstance(digit.a, Var):
            continue
        (extent,) = (axis.extent for axis in block.axes if axis.var.same_as(digit.a))
        rest, merged, size = digit.a, _index(0), _index(1)
        for d in range(last, -1, -1):
            own, index, tail = at[d], load.indices[d], tirx.floormod(rest, dims[d])
            here = ana.can_prove_equal(index, rest) or ana.can_prove_equal(index, tail)
            if not isinstance(own, Var) or not here:
                break
            merged, size, rest = merged + own * size, size * dims[d], tirx.floordiv(rest, dims[d])
            if d < last and ana.can_prove_equal(extent, size):
                return {digit.a: ana.simplify(merged)}, frozenset(range(d, last + 1))
    return {}, frozenset()


def _parts(
    index: Expr, own: Expr, block: Block, splits: Mapping[Var, tuple[int, int]]
) -> dict[Var, Expr]:
    """``{g: own // d, c: own % d}`` for an index ``g * d + c`` of all of an axis that is split."""
    split = splits.get(own) if isinstance(own, Var) else None
    if split is None or not isinstance(index, tirx.Add) or not isinstance(index.a, tirx.Mul):
        return {}
    high, factor, low = index.a.a, constant(index.a.b), index.b
    sizes = {axis.var: axis.size for axis in block.axes}
    if factor != split[1] or (sizes.get(high), sizes.get(low)) != split:
        return {}
    return {high: own // factor, low: own % factor}


def _whole(index: Expr, dim: Expr, block: Block) -> bool:
    """Whether an index is an axis that runs over all of a dim."""
    extents = [axis.extent for axis in block.axes if axis.var.same_as(index)]
    return len(extents) == 1 and bool(analyzer(()).can_prove_equal(extents[0], dim))


def _index(value: int) -> Expr:
    return tirx.const(value, "int64")
