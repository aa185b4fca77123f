"""Schedule rules for CPUs, in the order in which they are asked; the last one takes everything."""

from __future__ import annotations

from collections.abc import Iterable

from ..choices import Priced
from ..cost.model import CostModel
from ..rule import Rule
from .attention import FusedAttention
from .blocks import BlockProducts
from .choices import choices
from .conv import Conv
from .depthwise import Depthwise
from .elementwise import Elementwise
from .fallback import Fallback
from .gemm import Gemm
from .normalization import Normalization
from .nothing import Nothing
from .phases import Phases
from .pool_rows import PoolRows
from .pooling import Pooling
from .recurrence import Recurrence
from .reduction import Reduction
from .sections import Sections
from .top_k import TopK
from .update import Update


def rules(filters: Iterable[int] = (2,), model: CostModel | None = None) -> tuple[Rule, ...]:
    """The rules; `filters` are the tiles F(m, 3) that convolutions may use, by m.

    With a `model` it decides for the families that list their candidates, instead of their rules.
    """
    filters = tuple(filters)
    listed = choices(filters) if model else {}

    def priced(rule: Rule) -> Rule:
        return Priced(rule, listed[rule.name], model) if model and rule.name in listed else rule

    gemm, *others = (priced(rule) for rule in (Gemm(), Conv(filters), Depthwise(), Elementwise()))
    reduction = priced(Reduction())
    return (
        Nothing(),
        priced(FusedAttention()),
        Recurrence(),
        BlockProducts(),
        Update(),
        Phases((gemm, *others)),
        gemm,
        Sections((gemm, reduction)),
        *others,
        PoolRows(),
        Pooling(),
        reduction,
        priced(Normalization()),
        TopK(),
        Fallback(),
    )


RULES = rules()
