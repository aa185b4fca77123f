"""Attention: two products around a softmax, in one kernel without the matrix of scores.

Halves are multiplied by matrix instructions, float32 by multiply-adds; scores, weights and sums are
float32. Query heads that share keys are rows of one tile. Operands are read through any index map.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from tvm import tirx
from tvm.tirx import Stmt

from tvmext.arch import CudaArch

from ..kernel.attend import HALVES, Attention, attention, mask
from ..kernel.contraction import known_size, size
from ..kernel.emit import index
from ..rule import Declined, Kernel, Scheduled
from . import attention_choice, ptx
from .attention_choice import ByRows, Decision, Sizes
from .attention_kernel import Builder
from .attention_matrix import MatrixProducts
from .attention_plain import PlainProducts
from .attention_tiles import Products
from .mma import TYPES, element_types


@dataclass(frozen=True)
class Workload:
    """Attention, its sizes and how its products are done."""

    sizes: Sizes
    attention: Attention = field(repr=False, compare=False)


class FusedAttention:
    """softmax(bias(Q K^T)) V."""

    name = "attention"

    def __init__(self, arch: CudaArch) -> None:
        self.arch = arch

    def match(self, kernel: Kernel) -> Workload | Declined:
        found = attention(kernel)
        if isinstance(found, Declined):
            return found
        loads = (found.query, found.key, found.value)
        types = {str(load.source.ty.dtype) for load in loads}
        if len(types) > 1:
            return Declined(f"operands are {' and '.join(sorted(types))}")
        (dtype,) = types
        matrices = dtype in HALVES
        if dtype not in (*HALVES, "float32"):
            return Declined(f"operands are {dtype}")
        if matrices and dtype not in element_types(self.arch):
            return Declined(f"no matrix instruction for {dtype}")
        if found.depth.size is None or found.width.size is None:
            return Declined("the size of a head is not known")
        if found.keys.size == 0 or 0 in (found.depth.size, found.width.size):
            return Declined("there is nothing to add up")
        sizes = Sizes(
            known_size(found.batch),
            known_size(found.rows),
            found.keys.size,
            found.depth.size,
            found.width.size,
            dtype,
            matrices,
            mask(found) is not None,
        )
        if not attention_choice.candidates(sizes, self.arch):
            return Declined("a head is too large for a multiprocessor")
        return Workload(sizes, found)

    def choose(self, workload: Workload, arch: CudaArch) -> Decision | ByRows:
        return attention_choice.choose(workload.sizes, arch)

    def apply(
        self, kernel: Kernel, workload: Workload, decision: Decision | ByRows, arch: CudaArch
    ) -> Scheduled:
        found, func = workload.attention, kernel.func

        def launches(plan: Decision) -> Stmt:
            return Builder(found, plan, _products(workload, plan, arch)).launch()

        if isinstance(decision, ByRows):
            few = size(found.rows) <= index(decision.limit)
            body = tirx.IfThenElse(few, launches(decision.few), launches(decision.many))
        else:
            body = launches(decision)
        return Scheduled(tirx.PrimFunc(func.params, body, func.ret_type, func.attrs))


def _products(workload: Workload, plan: Decision, arch: CudaArch) -> Products:
    found, sizes, copies = workload.attention, workload.sizes, arch.has_async_copy
    if not sizes.matrices:
        return PlainProducts(found, plan, sizes, copies)
    kind = TYPES[sizes.dtype]
    multiply = ptx.Multiply(kind, kind, "f32", arch.capability >= (8, 0))
    return MatrixProducts(found, plan, sizes, copies, multiply)
