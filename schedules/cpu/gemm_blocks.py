"""In which order tiles of rows pass over the panels of a weight, by what fits the caches."""

from __future__ import annotations

from tvmext.arch import CpuArch, dtype_bits

from ..levels import PAGE_BYTES


def block_tiles_for(tiles: int | None, tile_bytes: int, arch: CpuArch) -> int:
    """Tiles per block of rows, equal blocks of at most half of L2; 0 if `lhs` fits as a whole."""
    limit = max(4, arch.l2_bytes // 2 // max(1, tile_bytes))
    if tiles is None:
        return limit
    return 0 if tiles * tile_bytes <= arch.l2_bytes else -(-tiles // -(-tiles // limit))


def near_rows(cols: int, column_bytes: int, dtype: str, arch: CpuArch) -> int:
    """Rows whose results fit L2, if of more each tile is to pass over all panels before the next.

    A panel of results whose rows are half a page apart and more has a page for each or every other
    row: beyond L2 they are stored row after row up to twice as fast (4363x2417x10), 1.02 to 1.07
    times with sums of 64 to 256. The weight is then read from L2 by every tile, and has to fit.
    0 where panel after panel is better.
    """
    row_bytes = dtype_bits(dtype) // 8 * cols
    if column_bytes * cols > arch.l2_bytes // 2 or row_bytes < PAGE_BYTES // 2:
        return 0
    return max(1, arch.l2_bytes // row_bytes)


def fetches_ahead(column_bytes: int, cols: int | None, width: int, arch: CpuArch) -> bool:
    """Whether a weight comes from beyond L2, and two of its panels fit there."""
    total, panel = column_bytes * (cols or width), column_bytes * width
    return total > arch.l2_bytes // 2 and 2 * panel <= arch.l2_bytes
