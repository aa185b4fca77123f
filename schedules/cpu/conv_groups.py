"""Convolutions of narrow groups as ones of wide groups, whose weight is block-diagonal.

    sum over i of x[g c + i] w[g m + j, i]  =  sum over i' of x[g' r c + i'] w'[g' r m + j', i']
    w'[r m g' + j', i'] = w[.., i' % c] if j' // m == i' // c else 0          g = g' r + j' // m

Vectors run along output channels; groups of fewer channels than a vector leave lanes idle, so that
the zeros cost nothing, and what comes after is a convolution of few groups like any other.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from tvm import tirx
from tvm.ir import Expr, TensorLoad, Var
from tvm_ffi import structural_map

from ..kernel.analysis import REDUCE, SPATIAL, Axis, analyzer, substitute
from ..kernel.contraction import Contraction, Operand, Output
from ..kernel.emit import index
from ..rule import Layout


@dataclass(frozen=True, eq=False)
class Groups:
    """The groups of a convolution, its channels in and out per group, as axes."""

    group: Axis
    inputs: Axis
    outputs: Axis

    @property
    def sizes(self) -> tuple[int, int, int]:
        """How many groups, and channels in and out of each, which a weight knows."""
        group, inputs, outputs = self.group.size, self.inputs.size, self.outputs.size
        assert group is not None and inputs is not None and outputs is not None
        return group, inputs, outputs

    def factor(self, lanes: int) -> int:
        """How many groups to take together: the fewest that fill vectors; 1 if none do."""
        groups, _, outputs = self.sizes
        if outputs >= lanes:
            return 1
        fills = (r for r in range(1, groups + 1) if groups % r == 0 and r * outputs % lanes == 0)
        return next(fills, 1)


def groups(total: Contraction) -> Groups | None:
    """The groups of `total` if it has any and their weight is ``w[g m + j, .., i]``."""
    lhs, weight = total.lhs.load, total.rhs.load
    if lhs is None or weight is None or len(total.batch) != 1 or len(total.cols) != 1:
        return None
    (group,), (outputs,) = total.batch, total.cols
    named = [a for a in total.reduce if any(a.var.same_as(i) for i in weight.indices[-1:])]
    if len(named) != 1 or not total.rhs.value.same_as(weight):
        return None
    found = Groups(group, named[0], outputs)
    ana = analyzer((*total.batch, *total.cols, *total.reduce))
    _, inputs, columns = found.sizes
    same = ana.can_prove_equal
    fits = (
        same(lhs.indices[-1], group.var * inputs + found.inputs.var),
        same(weight.indices[0], group.var * columns + outputs.var),
    )
    return found if all(fits) else None


def merged(total: Contraction, found: Groups, factor: int) -> Contraction:
    """`total` with `factor` groups in one."""
    count, inputs, outputs = found.sizes
    group = Axis(Var("group", "int64"), index(count // factor), SPATIAL)
    column = Axis(Var("column", "int64"), index(factor * outputs), SPATIAL)
    channel = Axis(Var("channel", "int64"), index(factor * inputs), REDUCE)
    wide: Expr = group.var if count > factor else index(0)
    ana = analyzer((group, column, channel, *total.rows, *total.reduce))
    reads = {
        found.group.var: wide * factor + channel.var // inputs,
        found.inputs.var: channel.var % inputs,
    }
    writes = {
        found.group.var: wide * factor + column.var // outputs,
        found.outputs.var: column.var % outputs,
    }

    def moved(value: Expr, at: dict[Var, Expr]) -> Expr:
        def load(one: TensorLoad) -> Expr:
            return tirx.BufferLoad(one.source, [ana.simplify(i) for i in one.indices])

        return structural_map(substitute(value, at), (TensorLoad, load))

    old = total.rhs.load
    assert old is not None
    shape = [*old.source.shape[:-1], index(factor * inputs)]
    buffer = tirx.decl_buffer(shape, str(old.source.dtype), old.source.name)
    row = ana.simplify(substitute(old.indices[0], writes))
    rhs = tirx.BufferLoad(buffer, [row, *old.indices[1:-1], channel.var])
    lhs = total.lhs
    assert lhs.load is not None
    return replace(
        total,
        batch=(group,) if count > factor else (),
        cols=(column,),
        reduce=tuple(channel if axis is found.inputs else axis for axis in total.reduce),
        lhs=Operand(
            moved(lhs.value, reads), moved(lhs.load, reads), moved(lhs.factor, reads), lhs.source
        ),
        rhs=Operand(rhs, rhs, rhs),
        outputs=tuple(
            Output(
                out.buffer,
                tuple(ana.simplify(substitute(i, writes)) for i in out.indices),
                moved(out.value, writes),
            )
            for out in total.outputs
        ),
    )


def spread(layout: Layout, found: Groups, factor: int) -> Layout:
    """The layout of a merged weight as one of the weight itself, zero between its groups."""
    _, inputs, outputs = found.sizes
    dims = list(layout.index_map.initial_indices)
    own = [Var(dim.name, "int64") for dim in dims]
    places: dict[Var, Expr] = dict(zip(dims, own))
    places[dims[-1]] = own[0] % (factor * outputs) // outputs * inputs + own[-1]
    final = [substitute(i, places) for i in layout.index_map.final_indices]
    return replace(layout, index_map=tirx.IndexMap(own, final, None))
