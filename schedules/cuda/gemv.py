"""Products with few rows: bound by reading the large operand once, 16 bytes per thread and access.

along the sum where that is contiguous               along the columns where those are
    threads (x: the sum, y: columns)                     threads (x: columns, y: the sum)
    sums[m, c] += lhs[m, k..] * rhs[c, k..]              sums[m, n..] += lhs[m, k] * rhs[k, n..]
    joined over x by shuffles                            joined over y through shared memory

"Rows" are those of the small operand, whichever it is. Long sums of few columns are cut into parts
for several blocks.
"""

from __future__ import annotations

from dataclasses import replace

from tvm import tirx

from tvmext.arch import CudaArch
from tvmext.arch.cuda import WARP

from ..kernel.contraction import known_size
from ..kernel.packed_weight import packed_weight
from ..kernel.read_contraction import contraction
from ..rule import Declined, Kernel, Scheduled
from .contract import FEW_ROWS
from .gemv_blocks import BlockBuilder, ThinPacked, packed
from .gemv_kernel import EACH, THREADS, Builder, Decision, Thin, columns, deep
from .operand import source

UNKNOWN = 1024
"""What a size is taken for that is known at run time only."""


class Gemv:
    """One operand has up to `FEW_ROWS` rows, or columns."""

    name = "gemv"

    def match(self, kernel: Kernel) -> Thin | Declined:
        found = contraction(kernel)
        if isinstance(found, Declined):
            return found
        if found.after or found.kept or not found.reduce:
            return Declined("the sum is read more than once")
        rows, cols = known_size(found.rows), known_size(found.cols)
        few = [n is not None and n <= FEW_ROWS for n in (rows, cols)]
        if not any(few) or all(few):
            return Declined("not one operand with few rows and one with many")
        large, small = ("rhs", rows) if few[0] else ("lhs", cols)
        many = found.cols if few[0] else found.rows
        small_axes = found.rows if few[0] else found.cols
        left, right = (found.lhs, found.rhs) if few[0] else (found.rhs, found.lhs)
        weight = packed_weight(found)
        if few[0] and weight is not None:
            return packed(found, weight)
        sources = (
            source(left.value, found.batch, small_axes, found.reduce),
            source(right.value, found.batch, many, found.reduce),
        )
        wide = sources[1]
        if not wide.contiguous:
            return Declined(
                "the large operand is contiguous neither along columns nor along the sum"
            )
        assert small is not None
        batch, reduce = known_size(found.batch), known_size(found.reduce)
        return Thin(
            batch,
            small,
            known_size(many),
            reduce,
            wide.run,
            wide.inward,
            large,
            found,
            sources,
        )

    def choose(self, workload: Thin, arch: CudaArch) -> Decision:
        cols, reduce = (UNKNOWN if n is None else n for n in (workload.cols, workload.reduce))
        length = (reduce if workload.inward else cols) // workload.run
        along = min(WARP, _power(length))
        plan = Decision(along, THREADS // along, EACH if workload.inward else workload.run, 1)
        while not workload.inward and plan.along > 4 and _blocks(workload, plan) < arch.sms:
            plan = replace(plan, along=plan.along // 2, across=plan.across * 2)
        if workload.reduce is not None:
            step = deep(workload) * (plan.along * workload.run if workload.inward else plan.across)
            while (
                _blocks(workload, plan) * plan.splits < arch.sms
                and plan.splits * step * 2 <= reduce
            ):
                plan = replace(plan, splits=plan.splits * 2)
        return plan

    def apply(
        self, kernel: Kernel, workload: Thin, decision: Decision, arch: CudaArch
    ) -> Scheduled:
        func = kernel.func
        if isinstance(workload, ThinPacked):
            body = BlockBuilder(workload, decision).launch()
        else:
            body = Builder(workload, decision).launch()
        return Scheduled(tirx.PrimFunc(func.params, body, func.ret_type, func.attrs))


def _power(count: int) -> int:
    """The largest power of two that is not larger, 1 at least."""
    return 1 << max(0, count.bit_length() - 1)


def _blocks(work: Thin, plan: Decision) -> int:
    cols = UNKNOWN if work.cols is None else work.cols
    return -(-cols // columns(work, plan)) * (work.batch or 1)
