"""Schedule rules for NVIDIA GPUs, in the order in which they are asked; the last takes all."""

from __future__ import annotations

from tvmext.arch import CudaArch

from ..rule import Rule
from .attention import FusedAttention
from .contract import Contract
from .depthwise import Depthwise
from .elementwise import Elementwise
from .fallback import Fallback
from .gemv import Gemv
from .mma import Mma
from .ordered import Ordered
from .recurrence import Recurrence
from .rows import Rows
from .scan import Scan
from .wgmma import Wgmma


def rules(arch: CudaArch, *, tf32: bool = False) -> tuple[Rule, ...]:
    """The rules; with `tf32` factors of float32 products may be rounded to 10 bits of mantissa."""
    return (
        FusedAttention(arch),
        Gemv(),
        Wgmma(arch, tf32=tf32),
        Mma(arch, tf32=tf32),
        Contract(),
        Depthwise(),
        Elementwise(),
        Scan(),
        Rows(),
        Ordered(),
        Recurrence(),
        Fallback(),
    )
