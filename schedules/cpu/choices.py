"""The families of kernels for CPUs that a cost model may choose for, by the name of their rule."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from ..choices import Choices
from .choices_conv import ConvChoices
from .choices_gemm import GemmChoices
from .choices_light import AttentionChoices, DepthwiseChoices, StagedChoices


def choices(filters: Iterable[int] = (2,)) -> Mapping[str, Choices]:
    """What the rules of `rules(filters)` may decide."""
    staged = StagedChoices()
    return {
        "gemm": GemmChoices(),
        "conv": ConvChoices(filters),
        "depthwise": DepthwiseChoices(),
        "attention": AttentionChoices(),
        "elementwise": staged,
        "reduction": staged,
        "normalization": staged,
    }
