"""Schedule rules for NVIDIA GPUs, in the order in which they are asked; the last takes all."""

from __future__ import annotations

from ..rule import Rule
from .contract import Contract
from .elementwise import Elementwise
from .fallback import Fallback
from .rows import Rows

RULES: tuple[Rule, ...] = (Contract(), Elementwise(), Rows(), Fallback())
