"""Matrix products and convolutions by warpgroups of sm_90a: wgmma, operands by tensor maps.

out[b, m, n] = epilogue(sum_k lhs(b, m, k) * rhs(b, n, k))      sums in float32 or int32

What is a strided tensor comes by its map (TMA); what is not, such as the window of a convolution,
by copies of 16 bytes (cp.async) through its index map. Weights of a few bits in blocks stay packed
in memory and become 16 bytes of halves in registers of the warpgroup that brings them. Where the
number of rows is not known, or is small, `mma.sync` may be cheaper.
"""

from __future__ import annotations

from dataclasses import dataclass

from tvm.tirx import Stmt

from tvmext.arch import CudaArch

from ..rule import Declined, Kernel, Scheduled
from . import mma_choice, wgmma_choice
from .mma import TYPES, Mma, Product, scheduled, sums
from .mma_choice import ByRows
from .operand import Source
from .ptx import CHUNK_BYTES
from .tensor_map import Strided, strided
from .wgmma_choice import Decision
from .wgmma_kernel import Builder


@dataclass(frozen=True)
class Wide:
    """A product, and its operands as strided tensors where they are such."""

    product: Product
    tensors: tuple[Strided | None, Strided | None]

    @property
    def brought(self) -> tuple[int, int]:
        """Bytes of each operand that a copy brings; 0 for those that a tensor map brings."""
        lhs, rhs = (0 if tensor is not None else CHUNK_BYTES for tensor in self.tensors)
        return lhs, rhs


class Wgmma:
    """Sums of products of narrow numbers, or of float32 ones if they may be rounded to tf32."""

    name = "wgmma"

    def __init__(self, arch: CudaArch, *, tf32: bool = False) -> None:
        self.arch, self.mma = arch, Mma(arch, tf32=tf32)

    def match(self, kernel: Kernel) -> Wide | Declined:
        if not self.arch.has_wgmma:
            return Declined(f"{self.arch.compute} has no wgmma")
        product = self.mma.match(kernel)
        if isinstance(product, Declined):
            return product
        if not all(map(_in_chunks, product.sources)) or product.sources[0].load is None:
            return Declined("an operand does not travel in runs of 16 bytes")
        if product.sizes.reduce is None:
            return Declined("the length of the sum is not known")
        found = product.contraction
        lhs, rhs = (
            strided(source, found.batch, own, found.reduce)
            for source, own in zip(product.sources, (found.rows, found.cols))
        )
        wide = Wide(product, (lhs, rhs))
        if product.sizes.dtype == "float32" and any(wide.brought):
            return Declined("only tensor maps round to tf32")
        if not _any_wide(self.choose(wide, self.arch)):
            return Declined("mma.sync is cheaper")
        return wide

    def choose(self, workload: Wide, arch: CudaArch) -> Decision | mma_choice.Decision | ByRows:
        return wgmma_choice.choose(workload.product.sizes, workload.brought, arch)

    def apply(
        self,
        kernel: Kernel,
        workload: Wide,
        decision: Decision | mma_choice.Decision | ByRows,
        arch: CudaArch,
    ) -> Scheduled:
        product = workload.product
        lhs, rhs = (TYPES[one.dtype] for one in product.sources)

        def kernels(plan: Decision | mma_choice.Decision) -> Stmt:
            if isinstance(plan, mma_choice.Decision):
                return self.mma.kernels(product, plan, arch)
            found, sources = product.contraction, product.sources
            return Builder(
                found, plan, sources, workload.tensors, (lhs, rhs), sums(product)
            ).launch()

        return scheduled(kernel, product, decision, kernels)


def _in_chunks(source: Source) -> bool:
    """Whether 16 bytes are brought at a time, or worked out of a few words."""
    return source.run_bytes == CHUNK_BYTES and (
        source.load is not None or source.unpacked is not None
    )


def _any_wide(decision: Decision | mma_choice.Decision | ByRows) -> bool:
    if isinstance(decision, ByRows):
        return _any_wide(decision.few) or _any_wide(decision.many)
    return isinstance(decision, Decision)
