"""The kernel of a matrix product (gemm.py), and of several among which it chooses when it runs."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from tvm import tirx
from tvm.ir import Expr

from tvmext.arch import CpuArch

from ..kernel.analysis import substitute
from ..kernel.contraction import Contraction, size
from ..kernel.emit import Values
from ..rule import Kernel, Layout, Scheduled
from .after import followed
from .dot_tile import dot_kernel
from .flat_rows import flat_rows
from .gemm_loops import Passes
from .gemm_variants import chosen
from .one_row import OneRow
from .panels import InPlace, Pack, weight
from .rows import cut
from .tile import Kernel as TileKernel

if TYPE_CHECKING:
    from .gemm import Decision, Workload


def build(kernel: Kernel, workload: Workload, decision: Decision, arch: CpuArch) -> Scheduled:
    """The kernel: one product, or several of which one is chosen when it runs."""
    decisions = (decision, *decision.others)
    total = flat_rows(workload.contraction)
    passes = [_passes(total, workload, one) for one in decisions]
    first = passes[0]
    bodies = [
        cut(size(total.rows), how.tile.rows, one.loops, how.heights)
        for how, one in zip(decisions, passes)
    ]
    sizes = (size(total.rows), size(total.cols), size(total.reduce))
    body = chosen(decisions, sizes, workload.rhs, arch.fma_units, bodies)
    body = followed(total, body, decision.tile.lanes, decision.parallel)
    params = list(kernel.func.params)
    layouts: dict[int, Layout] = {}
    if first.laid is not None and workload.weight_arg is not None:
        params[workload.weight_arg] = first.laid.buffer
        layouts[workload.weight_arg] = first.laid.layout
    func = tirx.PrimFunc(params, body, kernel.func.ret_type, kernel.func.attrs)
    return Scheduled(func, layouts)


def _passes(total: Contraction, workload: Workload, decision: Decision) -> Passes:
    """One matrix product."""
    shape, dot = decision.tile, decision.dot
    step = dot.step if dot else 1
    laid = weight(total, shape, step) if decision.rhs == "weight" else None
    common = (decision.parallel, decision.block_tiles)

    def lhs(at: Values, k: Values) -> Expr:
        return substitute(total.lhs.value, {**at, **k})

    if dot is not None:
        assert workload.types is not None
        tile, words = dot_kernel(total, shape, dot, workload.types, lhs, laid)
        return Passes(total, shape, tile, *common, words, laid, decision.ahead, step)
    if decision.rhs == "dots":
        return Passes(total, shape, OneRow(total, shape), *common)
    pack = Pack.of(total, shape) if decision.rhs == "pack" else None
    rhs = (laid or pack or InPlace(total)).read
    plain = TileKernel(total, shape, lambda at, k, panel, j: lhs(at, k) * rhs(panel, k, j))
    narrow = _narrow(total, workload, decision)
    return Passes(total, shape, plain, *common, pack, laid, decision.ahead, narrow=narrow)


def _narrow(total: Contraction, workload: Workload, decision: Decision) -> tuple[Passes, ...]:
    """What takes the last panel where it is not full: packed, of as many vectors as it has."""
    shape = decision.tile
    if decision.rhs not in ("pack", "in place"):
        return ()
    rest = None if workload.cols is None else -(-(workload.cols % shape.cols) // shape.lanes)
    return tuple(
        _passes(
            total, workload, replace(decision, tile=replace(shape, vectors=vectors), rhs="pack")
        )
        for vectors in range(1, shape.vectors + (decision.rhs == "in place"))
        if rest in (None, vectors)
    )
