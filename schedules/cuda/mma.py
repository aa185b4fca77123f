"""Matrix products and convolutions by matrix instructions: mma.sync, for sm_75 and later.

out[b, m, n] = epilogue(sum_k lhs(b, m, k) * rhs(b, n, k))      sums in float32 or int32

An operand is read through any index map while it is brought to shared memory; a convolution is the
product whose left operand is read through its window (implicit GEMM).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from math import prod
from typing import Any

from tvm import tirx
from tvm.ir import Expr
from tvm.tirx import Stmt

from tvmext.arch import CudaArch, dtype_bits

from ..kernel.analysis import Axis
from ..kernel.contraction import Contraction, known_size, size
from ..kernel.emit import index
from ..kernel.read_contraction import contraction
from ..rule import Declined, Kernel, Scheduled
from . import mma_choice, ptx
from .contract import FEW_ROWS
from .mma_choice import ByRows, Decision
from .mma_kernel import Builder
from .operand import Source, source
from .weights import Turned, turned, with_weight

TYPES = {
    "float16": "f16",
    "bfloat16": "bf16",
    "float32": "tf32",
    "int8": "s8",
    "uint8": "u8",
    "float8_e4m3fn": "e4m3",
    "float8_e5m2": "e5m2",
}
"""PTX's names of element types."""
INTEGERS = frozenset({"int8", "uint8"})
PAIRS = (INTEGERS, frozenset({"float8_e4m3fn", "float8_e5m2"}))
"""Types that mix in one product."""


@dataclass(frozen=True)
class Product:
    """A contraction, its sizes and how its operands are read."""

    sizes: mma_choice.Workload
    contraction: Contraction = field(repr=False, compare=False)
    sources: tuple[Source, Source] = field(repr=False, compare=False)
    weight: Turned | None = field(repr=False, compare=False)
    """The right operand in another layout."""


class Mma:
    """Sums of products of narrow numbers; float32 ones as well if they may be rounded to tf32."""

    name = "mma"

    def __init__(self, arch: CudaArch, *, tf32: bool = False) -> None:
        self.types = element_types(arch) - (set() if tf32 else {"float32"})

    def match(self, kernel: Kernel) -> Product | Declined:
        found = contraction(kernel)
        if isinstance(found, Declined):
            return found
        if not found.cols or not found.rows or not found.reduce:
            return Declined("an operand has no axis of its own")
        if found.after or found.kept:
            return Declined("the sum is read more than once")
        rows, cols, reduce = (known_size(axes) for axes in (found.rows, found.cols, found.reduce))
        if any(n is not None and n <= FEW_ROWS for n in (rows, cols)):
            return Declined("few rows or columns: a reduction")
        lhs = _source(found.lhs.value, found, found.rows)
        rhs = _source(found.rhs.value, found, found.cols)
        weight = None if _travels(rhs) else turned(kernel, found, found.reduce)
        if weight is not None:
            rhs = _source(weight.value, found, found.cols)
        types = {lhs.dtype, rhs.dtype}
        mix = len(types) == 1 or any(types <= pair for pair in PAIRS)
        if not (types <= self.types and mix):
            return Declined(f"no matrix instruction for {lhs.dtype} by {rhs.dtype}")
        if types <= INTEGERS and found.dtype != "int32":
            return Declined(f"integers are added up as {found.dtype}")
        copies = (lhs.run_bytes, rhs.run_bytes)
        sizes = mma_choice.Workload(
            known_size(found.batch),
            rows,
            cols,
            reduce,
            lhs.dtype,
            copies,
            prod(axis.size or 1 for axis in found.rows),
            rhs.unpacked is not None,
        )
        return Product(sizes, found, (lhs, rhs), weight)

    def choose(self, workload: Product, arch: CudaArch) -> Decision | ByRows:
        return mma_choice.choose(workload.sizes, arch)

    def apply(
        self, kernel: Kernel, workload: Product, decision: Decision | ByRows, arch: CudaArch
    ) -> Scheduled:
        return scheduled(
            kernel, workload, decision, lambda plan: self.kernels(workload, plan, arch)
        )

    def kernels(self, workload: Product, plan: Decision, arch: CudaArch) -> Stmt:
        """The launches for one decision."""
        lhs, rhs = (TYPES[one.dtype] for one in workload.sources)
        multiply = ptx.Multiply(lhs, rhs, sums(workload), arch.capability >= (8, 0))
        found, sources = workload.contraction, workload.sources
        return Builder(found, plan, sources, multiply, arch.has_async_copy).launch()


def element_types(arch: CudaArch) -> frozenset[str]:
    """What `ptx.Multiply` multiplies, float32 as tf32; those of sm_70 are of other shapes."""
    if arch.capability < (7, 5):
        return frozenset()
    return frozenset("float32" if name == "tfloat32" else name for name in arch.matrix_types)


def sums(product: Product) -> str:
    """What products are added up in, as PTX names it."""
    return "s32" if product.sizes.dtype in INTEGERS else "f32"


def scheduled(
    kernel: Kernel, workload: Product, decision: Any, kernels: Callable[[Any], Stmt]
) -> Scheduled:
    """The kernel with the launches that `kernels` makes for a decision, or for two of them."""
    func = kernel.func
    if isinstance(decision, ByRows):
        few = size(workload.contraction.rows) <= index(decision.limit)
        body = tirx.IfThenElse(few, kernels(decision.few), kernels(decision.many))
    else:
        body = kernels(decision)
    params, layouts = with_weight(func, workload.weight)
    return Scheduled(tirx.PrimFunc(params, body, func.ret_type, func.attrs), layouts)


def _source(value: Expr, found: Contraction, own: tuple[Axis, ...]) -> Source:
    read = source(value, found.batch, own, found.reduce, unpacks=True)
    return read if _travels(read) else replace(read, run=1)


def _travels(read: Source) -> bool:
    """Whether runs of the operand are runs in shared memory, or can be turned by `ldmatrix`.

    It transposes elements of 16 bits; others are turned one by one on their way.
    """
    return read.inward or dtype_bits(read.dtype) == 16
