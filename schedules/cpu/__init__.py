"""Schedule rules for CPUs, in the order in which they are asked; the last one takes everything."""

from __future__ import annotations

from collections.abc import Iterable

from ..rule import Rule
from .attention import FusedAttention
from .conv import Conv
from .depthwise import Depthwise
from .elementwise import Elementwise
from .fallback import Fallback
from .gemm import Gemm
from .normalization import Normalization
from .phases import Phases
from .pool_rows import PoolRows
from .pooling import Pooling
from .recurrence import Recurrence
from .reduction import Reduction
from .top_k import TopK


def rules(filters: Iterable[int] = (2,)) -> tuple[Rule, ...]:
    """The rules; `filters` are the tiles F(m, 3) that convolutions may use, by m."""
    gemm, conv, depthwise, elementwise = Gemm(), Conv(filters), Depthwise(), Elementwise()
    return (
        FusedAttention(),
        Recurrence(),
        Phases([gemm, conv, depthwise, elementwise]),
        gemm,
        conv,
        depthwise,
        elementwise,
        PoolRows(),
        Pooling(),
        Reduction(),
        Normalization(),
        TopK(),
        Fallback(),
    )


RULES = rules()
