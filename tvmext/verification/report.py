"""What a verification found, as plain data; how it is shown is the command line's business."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from .compare import Comparison


@dataclass(frozen=True)
class Case:
    """The outputs at one choice of sizes."""

    sizes: Mapping[str, int]
    outputs: tuple[Comparison, ...]

    @property
    def passed(self) -> bool:
        return all(output.passed for output in self.outputs)


@dataclass(frozen=True)
class Divergence:
    """The first value in the graph that differs from the reference, and the node that makes it.

    `values_compared` counts the values that were looked at. Without a `value`, none of them
    differs when it is computed as an output, `reason` then says what that means.
    """

    values_compared: int
    value: str = ""
    node: str = ""
    op_type: str = ""
    comparison: Comparison | None = None
    reason: str = ""


@dataclass(frozen=True)
class PassChange:
    """The first pass that changes results: one of `passes`, of which there is one as a rule.

    There are `total` passes; `place` is the number of the last of `passes`, from 1. `tried` counts
    the compilations. Without `passes`, `reason` says what is known instead. Where it is the pass
    that schedules, `kernels` has the first kernel at fault, with its rule.
    """

    passes: tuple[str, ...]
    total: int
    tried: int
    reason: str = ""
    place: int = 0
    kernels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Report:
    """All cases, and with what they were compared."""

    reference: str
    cases: tuple[Case, ...]
    divergence: Divergence | None = None
    change: PassChange | None = None

    @property
    def passed(self) -> bool:
        """Whether every output of every case is within its tolerance."""
        return all(case.passed for case in self.cases)

    def to_json(self) -> dict[str, Any]:
        """Plain data for ``json.dumps``; NaN and infinities are text."""
        cases = [
            {
                "sizes": dict(case.sizes),
                "passed": case.passed,
                "outputs": [{"passed": o.passed, **asdict(o)} for o in case.outputs],
            }
            for case in self.cases
        ]
        report = {
            "passed": self.passed,
            "reference": self.reference,
            "cases": cases,
            "divergence": asdict(self.divergence) if self.divergence else None,
            "first_pass": asdict(self.change) if self.change else None,
        }
        return _finite(report)


def _finite(value: Any) -> Any:
    """`value` with NaN and infinities as text, because JSON has no numbers for them."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
