"""Candidates for NVIDIA GPUs: compiled where there is none, measured on a host by one command.

    python -m tools.collect build FOLDER --target sm_90a --count 400      # NVRTC, no GPU
    python -m tools.collect measure FOLDER --data data/sm_90a --device cuda   # on the GPU host

The time of a call is that of the device's own events, from an emptied cache (tools/gpu/device.py).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import tvm

from tvmext.measure.samples import CLEAN_SPEED
from tvmext.measure.turns import DeviceLost, filled, pool

from ..gpu.device import Device as Clocked

EVERY = 20
"""Samples between two looks at the clock."""


class Cuda:
    """A GPU, or what stands in for one in a test, as `measure` wants it."""

    threads = 1

    def __init__(
        self, gpu: Clocked | None = None, load: Callable[[str], Any] = tvm.runtime.load_module
    ) -> None:
        if gpu is None:
            from ..gpu.device import Gpu

            gpu = Gpu()
        self.gpu = gpu
        self.name = str(gpu.describe()["device"])
        self._load = load
        self._pool = pool()
        self._asked, self._best, self._calm = 0, 0.0, True

    def load(self, path: Path) -> Any:
        return self._load(str(path))

    def array(self, shape: list[int], dtype: str) -> Any:
        return self.gpu.array(filled(self._pool, shape, dtype))

    def seconds(self, library: Any, symbol: str, arguments: list[Any], number: int) -> float:
        """One call for each sample, whatever `number` says: each begins with an empty cache."""
        function = library[symbol]
        found = self.gpu.seconds(lambda: function(*arguments))
        if not self.gpu.alive():
            raise DeviceLost(f"{self.name} takes no work after {symbol}")
        return float(found)

    def undisturbed(self) -> bool:
        """By its clock, which takes too long to ask for after every sample."""
        self._asked += 1
        if self._asked % EVERY == 1:
            speed = self.gpu.speed()
            self._best = max(self._best, speed)
            self._calm = speed >= CLEAN_SPEED * self._best
        return self._calm
