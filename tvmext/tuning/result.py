"""What tuning found, as plain data."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class TunedKernel:
    """A kernel: how long a call takes as its rule decides, and with the fastest candidate.

    `calls` are those of a run, `tried` the candidates that were timed, now or before. `noisy` tells
    that the machine was not quiet enough to be sure. `decision` is the fastest one.
    """

    kernel: str
    rule: str
    calls: int
    tried: int
    seconds: float
    best: float
    noisy: bool
    decision: Any

    @property
    def gain(self) -> float:
        """How many times as fast the best candidate is."""
        return self.seconds / self.best


@dataclass(frozen=True)
class Tuned:
    """All kernels that were measured, and why the others were not: (kernel, rule, reason)."""

    kernels: tuple[TunedKernel, ...]
    left: tuple[tuple[str, str, str], ...]

    @property
    def saved(self) -> float:
        """Seconds of a run that the best candidates save."""
        return sum(one.calls * (one.seconds - one.best) for one in self.kernels)

    def to_json(self) -> dict[str, Any]:
        """Plain data for ``json.dumps``."""
        return {
            "kernels": [{**asdict(one), "gain": one.gain} for one in self.kernels],
            "left": [dict(zip(("kernel", "rule", "reason"), one)) for one in self.left],
            "saved_seconds": self.saved,
        }
