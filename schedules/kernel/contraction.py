"""A kernel as one contraction with its producers and consumers, in the terms of matrix products.

    out[b, m, n] = epilogue(sum_k lhs(b, m, k) * rhs(b, n, k))

Every axis of the sum is a *batch* axis (both operands depend on it), a *row* (only `lhs` does), a
*column* (only `rhs` does) or a *reduce* axis. Columns are the innermost of the output, the ones
that vectors run along: `rhs` is loaded as vectors and each element of `lhs` is broadcast. Matrix
products, attention scores and every convolution are of this kind; what differs is whether an index
of an operand adds up a row and a reduce axis, as the window of a convolution does.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import prod

from tvm import sym, tirx
from tvm.ir import Expr, TensorLoad, Var

from ..levels import UNKNOWN_SIDE
from ..rule import Declined, Kernel
from .analysis import (
    Axis,
    Block,
    analyzer,
    collect,
    constant,
    stride,
    substitute,
    variables,
)


@dataclass(frozen=True, eq=False)
class Operand:
    """One factor of the products.

    `value` is the factor over the axes of the contraction, producers inlined. `load` is the one
    load in `factor` if that is a load, perhaps cast. `source` is the block that computes what
    `load` reads, when that is more than a permutation of a parameter: the loader stage of a
    schedule. `factor` is `value` with `source` not inlined.
    """

    value: Expr
    load: TensorLoad | None
    factor: Expr
    source: Block | None = None

    @property
    def direct(self) -> bool:
        """Whether the elements can be read in place."""
        return self.load is not None and self.source is None


@dataclass(frozen=True, eq=False)
class Output:
    """``buffer[indices] = value`` over the spatial axes and the variable that holds the sum."""

    buffer: Var
    indices: tuple[Expr, ...]
    value: Expr


@dataclass(frozen=True, eq=False)
class Contraction:
    """A contraction; axes of extent 1 are left out, axes are in the order of the output."""

    batch: tuple[Axis, ...]
    rows: tuple[Axis, ...]
    cols: tuple[Axis, ...]
    reduce: tuple[Axis, ...]
    lhs: Operand
    rhs: Operand
    total: Var
    outputs: tuple[Output, ...]
    kept: tuple[Var, ...] = ()
    """Buffers of the kernel's own among those of `outputs`: what `after` reads."""
    after: tuple[Block, ...] = ()
    """Consumers that read an element of the sum more than once: they run when it is complete."""

    @property
    def dtype(self) -> str:
        """The type that sums are kept in."""
        return str(self.total.ty.dtype)

    def constant_rhs(self, kernel: Kernel) -> int | None:
        """The parameter that `rhs` reads in place, if it is a weight that nothing else reads."""
        if not self.rhs.direct:
            return None
        buffer = self.rhs.load.source  # type: ignore[union-attr]
        users = collect(
            [self.lhs.value, self.rhs.value, *(out.value for out in self.outputs)], TensorLoad
        )
        for position, param in enumerate(kernel.func.params):
            if param.same_as(buffer):
                alone = sum(load.source.same_as(buffer) for load in users) == 1
                return position if position in kernel.constant_args and alone else None
        return None


def size(axes: Iterable[Axis]) -> Expr | int:
    """How many points `axes` span: an int if that is known."""
    extents = [axis.extent if axis.size is None else axis.size for axis in axes]
    return prod(extents) if extents else 1


def known_size(axes: Iterable[Axis]) -> int | None:
    """How many points `axes` span, or None if that is known at run time only."""
    return constant(size(axes))


def least_size(axes: Iterable[Axis]) -> int:
    """How many points `axes` span where every dim that is known at run time only is 1."""
    total = size(axes)
    ones = substitute(total, {var: tirx.const(1, str(var.ty)) for var in variables(total)})
    return constant(sym.Analyzer().simplify(ones)) or 1


def windowed(operand: Operand, reduce: Iterable[Axis]) -> bool:
    """Whether an index of `operand` adds up reduce and other axes, as a sliding window does.

    A window is affine in the axes; merged heads, such as ``4 * (m % 8) + k % 4``, are none.
    """
    inner = {axis.var for axis in reduce}
    if operand.load is None:
        return False
    affine = [index for index in operand.load.indices if not collect(index, _NOT_AFFINE)]
    used = [variables(index) for index in affine]
    return any(names & inner and names - inner for names in used)


def strided(found: Contraction) -> bool:
    """Whether `lhs` skips elements between rows, as a 1x1 convolution of stride 2 does.

    Rows that are not affine in the axes, such as those of a window partition, are looked up in
    place one by one.
    """
    load = found.lhs.load
    if load is None:
        return False
    axes = (*found.batch, *found.rows, *found.reduce)
    ana = analyzer(axes, load.source.shape)
    steps = [
        stride(index, axis.var, ana)
        for index in load.indices
        for axis in found.rows
        if axis.var in variables(index) and not collect(index, _NOT_AFFINE)
    ]
    return any(step is None or constant(step) != 1 for step in steps)


_DIVISIONS = (tirx.FloorDiv, tirx.FloorMod)
_NOT_AFFINE = (*_DIVISIONS, tirx.Select)


def rows_of(found: Contraction) -> tuple[tuple[Axis, ...], Axis | None, Axis]:
    """The rows of a convolution: images, the dim that blocks are cut from, the one of tiles."""
    *outer, last = found.rows
    return (tuple(outer[:-1]), outer[-1], last) if outer else ((), None, last)


def usual_sizes(rows: Sequence[Axis]) -> list[int]:
    """The sizes of the rows of a convolution, with the usual ones for those that are not known."""
    unknown = [1] * max(0, len(rows) - 2) + [UNKNOWN_SIDE] * 2
    return [other if axis.size is None else axis.size for axis, other in zip(rows, unknown)]


def slides_along(found: Contraction, width: Axis) -> tuple[Axis, tuple[int, int]] | Declined:
    """The reduce axis that slides along `width`, and how far the input moves with each of both."""
    load = found.lhs.load
    axes = (*found.batch, *found.rows, *found.cols, *found.reduce)
    if load is None:
        return Declined("the input is computed from several loads")
    for at in load.indices:
        taps = [axis for axis in found.reduce if axis.var in variables(at)]
        if width.var in variables(at) and len(taps) == 1:
            ana = analyzer(axes, load.source.shape)
            steps = [stride(at, axis.var, ana) for axis in (width, taps[0])]
            factors = [None if step is None else constant(step) for step in steps]
            if all(factor is not None and factor > 0 for factor in factors):
                return taps[0], (factors[0] or 1, factors[1] or 1)
    return Declined("no window slides along the last spatial axis")


def run_length(operand: Operand, axis: Axis) -> int | None:
    """Steps of a reduce axis after which `operand` goes on elsewhere, if that is one number.

    So merged heads are read, ``a[.., k // 64, .., k % 64]``: in two loops no step divides.
    """
    nodes = [node for kind in _DIVISIONS for node in collect(operand.value, kind)]
    runs = {constant(node.b) for node in nodes if node.a.same_as(axis.var)}
    run = runs.pop() if len(runs) == 1 else None
    return run if run and axis.size and axis.size % run == 0 else None
