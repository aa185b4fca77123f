"""The axes of what consumes a sum, as axes of the sum: one element for one, or not.

A reshape may have merged axes of the sum into one of the consumer, or cut one into two.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tvm import tirx
from tvm.ir import Expr, TensorLoad, Var
from tvm_ffi import structural_equal

from .analysis import Block, analyzer, constant, variables


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

    where the axis r of the consumer runs over all of the axes a, b, c: a reshape merged them, or
    they were interleaved. The dim of the last digit may be anywhere.
    """
    found: dict[Var, Expr] = {}
    dims: frozenset[int] = frozenset()
    for last, digit in enumerate(load.indices):
        if isinstance(digit, tirx.FloorMod) and isinstance(digit.a, Var) and last not in dims:
            merged, own = _digits(load, at, block, last)
            if merged is not None:
                found[digit.a], dims = merged, dims | own
    return found, dims


def _digits(
    load: TensorLoad, at: Sequence[Expr], block: Block, last: int
) -> tuple[Expr | None, frozenset[int]]:
    """The axis of which dim `last` is read at the last digit, as axes of the sum, and its dims."""
    axis, shape, ana = load.indices[last].a, load.source.shape, analyzer(())
    (extent,) = (one.extent for one in block.axes if one.var.same_as(axis))
    others = [d for d in reversed(range(len(shape))) if axis in variables(load.indices[d])]
    rest, merged, size = axis, _index(0), _index(1)
    dims: frozenset[int] = frozenset()
    for d in (last, *(d for d in others if d != last)):
        own, index, tail = at[d], load.indices[d], tirx.floormod(rest, shape[d])
        here = (d != last and ana.can_prove_equal(index, rest)) or ana.can_prove_equal(index, tail)
        if not isinstance(own, Var) or not here:
            break
        dims, merged, size = dims | {d}, merged + own * size, size * shape[d]
        if len(dims) > 1 and ana.can_prove_equal(extent, size):
            return ana.simplify(merged), dims
        rest = tirx.floordiv(rest, shape[d])
    return None, frozenset()


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
