"""Results are compared before anything is timed."""

from __future__ import annotations

import numpy as np

from tvmext.verification.compare import Tolerance, compare, tolerance_of


def agreement(ours: np.ndarray, theirs: np.ndarray, step: float = 0.0) -> float:
    """The largest difference; raises ValueError if it is more than rounding explains.

    `step` is that of a quantized result: sums on either side of half a step differ by one.
    """
    tolerance = tolerance_of("result", theirs)
    tolerance = Tolerance(tolerance.rtol, max(tolerance.atol, step))
    found = compare("result", ours, theirs, tolerance)
    if found.problem:
        raise ValueError(f"the result is of another kind: {found.problem}")
    if not found.passed:
        raise ValueError(
            f"wrong result: {found.failed} of {found.total} elements differ from ONNX Runtime's, "
            f"by up to {found.max_abs:.2g}"
        )
    return found.max_abs
