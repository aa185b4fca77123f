"""Sums whose factors lie in several places along an axis of the result: one kernel for each.

    out[i] = sum_k (a[i, k] if i < n else b[i - n, k]) * w[k]

Where a product reads a concat, a pad or a roll through its map, a condition along one axis says
where each element is. In every section of that axis it is decided, and what is left is a product
that reads its factor in place, or a plain sum where the factor is a constant.
"""

from __future__ import annotations

from functools import lru_cache

from tvm.ir import Expr, TensorLoad, Var

from ..kernel.analysis import SPATIAL, Axis, Block, View, analyzer, collect, substitute
from ..kernel.read_contraction import contraction, summed
from ..kernel.view import view
from ..rule import Declined, Kernel
from .gemm import Gemm
from .guards import place
from .parts import Parts, Slice, Split, decided
from .reduction import Reduction

MOST_SECTIONS = 8
"""Kernels that one kernel may become; each is code of its own."""

Box = dict[Var, Slice]
"""What is left of the axes that are cut."""


class Sections(Parts):
    """Products one of whose factors is found by a condition along axes of the result."""

    name = "sections"

    def apart(self, kernel: Kernel) -> tuple[Kernel, ...] | Declined:
        return sections(kernel)


@lru_cache(maxsize=16)  # the rule asks, and the price
def sections(kernel: Kernel) -> tuple[Kernel, ...] | Declined:
    """A product as one kernel for each section, or why it is not cut."""
    found = contraction(kernel)
    if isinstance(found, Declined):
        return found
    if found.lhs.direct:
        return Declined("its factors are read in place")
    if found.constant_rhs(kernel) is not None:
        return Declined("its weight can be laid out for one section only")
    seen = view(kernel.func)
    assert isinstance(seen, View)
    head = summed(seen)
    boxes = _boxes(head)
    named = {var for box in boxes for var in box}
    cut = {axis.var: Slice(0, 1, axis.extent) for axis in head.axes if axis.var in named}
    if not 2 <= len(boxes) <= MOST_SECTIONS:
        return Declined(f"it has {len(boxes)} sections")
    blocks = (head if block is seen.reductions[0] else block for block in seen.blocks)
    split = Split.after(View(seen.func, tuple(blocks)), head, cut)
    if isinstance(split, Declined):
        return split
    ana = analyzer(head.axes)
    for block in split.tail:
        for axis in block.axes:
            if axis.var in split.axes:
                whole = cut[split.axes[axis.var]].extent
                if not ana.can_prove_equal(whole, axis.extent):
                    return Declined(f"'{block.name}' reads a part of the sum")
    parts = tuple(split.kernel(kernel, n, cut | box) for n, box in enumerate(boxes))
    if not all(map(_in_place, parts)):
        return Declined("a section is no product that reads its factors in place")
    return parts


def _in_place(part: Kernel) -> bool:
    """Whether a section is a product of what lies in memory, or a sum times a constant."""
    found = contraction(part)
    if isinstance(found, Declined):
        return False
    rule = Gemm() if collect(found.lhs.value, TensorLoad) else Reduction()
    return not isinstance(rule.match(part), Declined)


def _boxes(head: Block) -> list[Box]:
    """The axes of a sum cut until no condition along one of them is left, as far as that goes."""
    pending: list[Box] = [{}]
    done: list[Box] = []
    while pending:
        box = pending.pop()
        found = _place(head, box) if len(pending) + len(done) < MOST_SECTIONS else None
        if found is None:
            done.append(box)
            continue
        axis, at = found
        whole = box.get(axis.var, Slice(0, 1, axis.extent))
        assert whole.extent is not None
        ana = analyzer(head.axes)
        rest = Slice(ana.simplify(whole.start + at), 1, ana.simplify(whole.extent - at))
        pending += [box | {axis.var: rest}, box | {axis.var: Slice(whole.start, 1, at)}]
    return done


def _place(head: Block, box: Box) -> tuple[Axis, Expr] | None:
    """An axis of `head` and where in its section a condition changes that is not decided there."""
    own = {var: Var(var.name, var.ty) for var in box}
    values = {var: own[var] + part.start for var, part in box.items()}
    axes = tuple(
        Axis(own[axis.var], box[axis.var].count(axis), SPATIAL) if axis.var in box else axis
        for axis in head.axes
    )
    value = substitute(decided(head.stores[0].value, values, analyzer(axes)), values)
    found = place([value], axes)
    if found is None:
        return None
    back = {section.var: axis for section, axis in zip(axes, head.axes)}
    return back[found[0].var], found[1]
