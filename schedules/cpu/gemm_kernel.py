"""The kernel of a matrix product (gemm.py), and of several among which it chooses when it runs."""

from __future__ import annotations

from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING

from tvm import tirx
from tvm.ir import Expr

from tvmext.arch import CpuArch, dtype_bits

from ..kernel.analysis import substitute
from ..kernel.contraction import Contraction, size
from ..kernel.emit import Values
from ..rule import Kernel, Layout, Scheduled
from . import masks
from .after import followed
from .columns import down_columns
from .dot_tile import dot_kernel
from .flat_rows import flat_rows, named_places
from .gemm_loops import Passes
from .gemm_variants import apart, chosen, narrower
from .in_place import InPlace
from .one_column import unless_one_column
from .one_row import OneRow, masks_fit
from .panel import Panel
from .panels import Pack, weight
from .rows import cut
from .shared_tile import SharedTile, runs
from .tile import Kernel as TileKernel
from .turns import hiding

if TYPE_CHECKING:
    from .gemm import Decision, Workload


def build(kernel: Kernel, workload: Workload, decision: Decision, arch: CpuArch) -> Scheduled:
    """The kernel: one product, or several of which one is chosen when it runs."""
    decisions = (decision, *decision.others)
    total = flat_rows(workload.contraction)
    passes = [_with_narrow(total, workload, one, arch) for one in decisions]
    first = passes[0]
    bodies = [
        cut(size(total.rows), how.tile.rows, one.loops, how.heights)
        for how, one in zip(decisions, passes)
    ]
    sizes = (size(total.batch), size(total.rows), size(total.cols), size(total.reduce))
    body = chosen(decisions, sizes, workload.rhs, arch.fma_units, bodies)
    body = followed(total, body, decision.tile.lanes, decision.parallel)
    if workload.column is not None and decision.column is not None:
        one = workload.column
        column = build(one.kernel, one.workload, decision.column, arch).func
        body = unless_one_column(body, kernel, one.columns, column)
    params = list(kernel.func.params)
    layouts: dict[int, Layout] = {}
    if first.laid is not None and workload.weight_arg is not None:
        params[workload.weight_arg] = first.laid.buffer
        layouts[workload.weight_arg] = first.laid.layout
    func = tirx.PrimFunc(params, body, kernel.func.ret_type, kernel.func.attrs)
    return Scheduled(func, layouts)


def _passes(total: Contraction, workload: Workload, decision: Decision, arch: CpuArch) -> Passes:
    """One matrix product."""
    shape, dot = decision.tile, decision.dot
    step = dot.step if dot else 1
    laid = weight(total, shape, step) if decision.rhs == "weight" else None
    common = (decision.parallel, decision.block_tiles)
    value, places = named_places(total)

    def lhs(at: Values, k: Values) -> Expr:
        return substitute(value, {**at, **k})

    if dot is not None:
        assert workload.types is not None
        tile, words = dot_kernel(total, shape, dot, workload.types, lhs, laid)
        return Passes(
            total,
            shape,
            tile,
            *common,
            words,
            laid,
            decision.ahead,
            step,
            places=places,
            near_rows=decision.near_rows,
        )
    if decision.rhs == "dots":
        in_masks = arch.has_masks and masks_fit(total)
        return Passes(total, shape, OneRow(total, shape, masked=in_masks), *common)
    masked = arch.has_masks and masks.results_fit(total)
    pack = Pack.of(total, shape) if decision.rhs == "pack" else None
    rhs = laid or pack
    chains = hiding(arch.fmas_per_cycle(shape.lanes * dtype_bits(total.dtype)))
    plain: TileKernel
    if rhs is None:
        plain, masked = (
            InPlace.of(total, shape, lhs, chains),
            masked and masks.operand_fits(total, total.rhs),
        )
    else:

        def term(at: Values, k: Values, panel: Panel, j: Expr) -> Expr:
            return lhs(at, k) * rhs.read(panel, k, j)

        plain = TileKernel(total, shape, term, chains=chains)
    shared = None
    along = runs(total) if decision.shared else None
    if rhs is not None and along is not None:
        narrow = [one for one in narrower(shape, total.dtype, arch) if one.lanes == shape.lanes]
        shared = SharedTile(
            plain,
            lambda at, k: substitute(total.lhs.value, {**at, **k}),
            along,
            rhs,
            heights=tuple(height for height, _ in decision.heights),
            ahead=decision.ahead > 0,
            narrow=() if laid else tuple(narrow),
        )
    walked = masked and rhs is None and not plain.heavy and not decision.up_to
    near = arch.l2_bytes // 4 if walked else 0
    return Passes(
        total,
        shape,
        plain,
        *common,
        pack,
        laid,
        decision.ahead,
        masks=masked,
        near_bytes=near,
        places=places,
        columns=down_columns(total),
        shared=shared,
        near_rows=decision.near_rows,
    )


def _with_narrow(
    total: Contraction, workload: Workload, decision: Decision, arch: CpuArch
) -> Passes:
    """One matrix product; its last panel, where it is not full, in tiles as narrow as that."""
    found, shape = _passes(total, workload, decision, arch), decision.tile
    if found.shared or decision.dot or decision.up_to:
        return found
    if decision.rhs not in ("pack", "in place"):
        return found
    copied = decision.rhs == "in place" and not found.masks
    shapes = narrower(shape, workload.dtype, arch)
    if workload.cols is None:
        shapes = apart(shapes, shape, decision.least_cols)
    shapes += [shape] if copied else []
    if workload.cols is not None:
        rest = workload.cols % shape.cols
        fitting = (one for one in (*shapes, shape) if rest <= one.cols)
        shapes = [one for one in islice(fitting, 1) if rest and (copied or one is not shape)]
    how = "pack" if copied else decision.rhs
    narrow = (
        _passes(total, workload, replace(decision, tile=one, rhs=how), arch) for one in shapes
    )
    tile = replace(found.tile, turned_from=shape.rows)  # most steps are those of whole panels
    return replace(found, tile=tile, narrow=tuple(narrow))
