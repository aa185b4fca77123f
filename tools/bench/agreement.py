"""Results are compared before anything is timed."""

from __future__ import annotations

import numpy as np

RTOL, ATOL = 1e-3, 1e-4


def agreement(ours: np.ndarray, theirs: np.ndarray) -> float:
    """The largest difference; raises ValueError if it is more than rounding explains."""
    if ours.shape != theirs.shape:
        raise ValueError(f"the result has shape {ours.shape}, expected {theirs.shape}")
    difference = np.abs(ours.astype(np.float64) - theirs)
    if not np.all(difference <= ATOL + RTOL * np.abs(theirs)):
        raise ValueError(f"wrong result: it differs from ONNX Runtime's by {difference.max():.2g}")
    return float(difference.max(initial=0))
