"""Compiled models checked against references: ONNX Runtime, onnx.reference, saved outputs."""

from .compare import TOLERANCES, Comparison, Tolerance
from .report import Case, Divergence, Report
from .verify import verify

__all__ = ["TOLERANCES", "Case", "Comparison", "Divergence", "Report", "Tolerance", "verify"]
