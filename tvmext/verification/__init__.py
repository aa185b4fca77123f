"""Compiled models checked against references: ONNX Runtime, onnx.reference, saved outputs."""

from .compare import TOLERANCES, Comparison, Tolerance
from .report import Case, Divergence, PassChange, Report
from .verify import check_reference, verify

__all__ = [
    "TOLERANCES",
    "Case",
    "Comparison",
    "Divergence",
    "PassChange",
    "Report",
    "Tolerance",
    "check_reference",
    "verify",
]
