"""The families of kernels for NVIDIA GPUs that a cost model may choose for, by their rule."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tvmext.arch import CudaArch, dtype_bits

from ..choices import Choices
from ..cost.terms import FAMILIES, Terms
from . import mma_choice
from .mma import Product
from .mma_choice import Decision

MOST_TILES = 40
FAR = 3.0
"""Times the least analytic price beyond which a tile is not worth a look; it has met no GPU yet."""


class MmaChoices:
    """Candidates of `Mma`: tiles of blocks and warps, stages, parts of the sum."""

    def candidates(self, workload: Product, arch: CudaArch) -> list[Decision | mma_choice.ByRows]:
        sizes = workload.sizes
        picked = mma_choice.choose(sizes, arch)
        if sizes.rows is None or isinstance(picked, mma_choice.ByRows):
            return [picked]
        priced = [
            (mma_choice.price(sizes, one, arch), number, one)
            for number, one in enumerate(mma_choice.candidates(arch, sizes))
        ]
        priced.sort(key=lambda one: one[:2])
        near = [one for price, _, one in priced[:MOST_TILES] if price <= FAR * priced[0][0]]
        return list(dict.fromkeys([picked, *near]))

    def terms(
        self,
        workload: Product,
        decisions: Sequence[Decision | mma_choice.ByRows],
        arch: CudaArch,
    ) -> Terms:
        """Where rows are not known they are taken for many, and so is the tile for them."""
        sizes = workload.sizes
        tiles: list[Decision] = [
            one.many if isinstance(one, mma_choice.ByRows) else one for one in decisions
        ]
        prices = [mma_choice.price(sizes, one, arch) for one in tiles]
        return Terms.of(
            family=FAMILIES.index("mma"),
            batch=sizes.batch or 1,
            rows=sizes.rows or mma_choice.UNKNOWN_ROWS[-1],
            cols=sizes.cols or mma_choice.UNKNOWN_COLS,
            depth=sizes.reduce or mma_choice.UNKNOWN_DEPTH,
            item=dtype_bits(sizes.dtype) // 8,
            free=sum(n is None for n in (sizes.batch, sizes.rows, sizes.cols, sizes.reduce)),
            tile_rows=[one.warp_rows for one in tiles],
            lanes=[one.warp_cols for one in tiles],
            block_rows=[one.rows for one in tiles],
            block_cols=[one.cols for one in tiles],
            block_depth=[one.depth for one in tiles],
            in_flight=[one.stages for one in tiles],
            splits=[mma_choice.parts(sizes, one) for one in tiles],
            copy_bytes=min(sizes.copies),
            resident=[mma_choice.resident(one, sizes.dtype, arch) for one in tiles],
            registers=arch.registers_per_sm,
            units=arch.matrix_fma,
            l1=arch.shared_per_sm,
            l2=arch.l2_bytes,
            l3=arch.l2_bytes,
            ghz=arch.ghz,
            dram=arch.dram_gb_s,
            cores=arch.sms,
            cycles=prices,
        )


def choices() -> Mapping[str, Choices]:
    """What the rules for GPUs may decide."""
    return {"mma": MmaChoices()}
