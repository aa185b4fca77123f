"""Heights of tiles where the number of rows is known at run time only: what a tile of one costs."""

from __future__ import annotations

from tvmext.arch import CpuArch, dtype_bits

from ..dispatch import Heights, mixture
from ..kernel.contraction import Contraction, known_size
from ..kernel.ranges import ANY, Span
from ..levels import FAR_CYCLES, STREAM_CYCLES, UNKNOWN_DEPTH, streamed_cycles
from .dots import Dot
from .tile import Shape
from .turns import hiding, parts


def tile_heights(
    shape: Shape,
    found: Contraction,
    dot: Dot | None,
    arch: CpuArch,
    rows: Span = ANY,
    *,
    far: bool = False,
) -> Heights:
    """Heights up to that of `shape`, for any number of rows in a range.

    A tile waits for a panel that L1 does not hold, and longer if it is `far`, beyond L2.
    """
    step = dot.step if dot else 1
    depth, last = (
        None if n is None else -(-n // step)
        for n in (known_size(found.reduce), found.reduce[-1].size)
    )
    depth = UNKNOWN_DEPTH if depth is None else depth
    bits = dtype_bits(found.dtype)
    units = arch.fmas_per_cycle(shape.lanes * bits)
    panel_bytes = depth * shape.cols * bits // 8
    away = FAR_CYCLES if far else STREAM_CYCLES
    stream = away if panel_bytes > arch.l1_bytes // 2 else 0.0

    def price(height: int) -> float:
        split = parts(height, shape.vectors, last, hiding(units)) > 1
        return streamed_cycles(height, shape.vectors, units, depth, stream, split)

    return mixture(range(1, shape.rows + 1), price, *rows)
