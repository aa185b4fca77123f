"""Where the time of a compiled model goes, kernel by kernel."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

BUILTIN = "vm.builtin."
"""How the names of the virtual machine's own functions begin: memory, shapes, checks."""


@dataclass(frozen=True)
class Kernel:
    """One call of a kernel: its position in the run, and the least seconds it took."""

    position: int
    name: str
    shapes: tuple[tuple[int, ...], ...]
    seconds: float

    @property
    def operators(self) -> set[str]:
        """The words of its name without numbers: ``fused_conv2d3_relu1`` has conv2d and relu."""
        return {re.sub(r"\d+$", "", word) for word in self.name.split("_")}


@dataclass(frozen=True)
class Profile:
    """The kernels of one run in their order, and the seconds of a run without instruments."""

    kernels: tuple[Kernel, ...]
    total: float


def profile(machine: Any, run: Callable[[], object], runs: int) -> Profile:
    """Time every call of a kernel in `runs` runs of a virtual machine; the least counts.

    The instrument itself is in the figures; the fastest call of a builtin, which does next to
    nothing, shows what it costs, and that is subtracted.
    """
    recorder = _Recorder()
    run()
    total = min(_seconds(run) for _ in range(runs))
    machine.set_instrument(recorder.instrument)
    try:
        for _ in range(runs):
            recorder.start()
            run()
    finally:
        machine.set_instrument(lambda *_: 0)
    cost = min((s for (_, name), s in recorder.least.items() if _is_builtin(name)), default=0.0)
    kernels = tuple(
        Kernel(position, name, recorder.shapes[position, name], max(0.0, seconds - cost))
        for (position, name), seconds in recorder.least.items()
        if not _is_builtin(name)
    )
    return Profile(kernels, total)


def _is_builtin(name: str) -> bool:
    return name.startswith(BUILTIN)


def _seconds(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


class _Recorder:
    """The least seconds and the argument shapes of every call, by (position, name)."""

    def __init__(self) -> None:
        self.least: dict[tuple[int, str], float] = {}
        self.shapes: dict[tuple[int, str], tuple[tuple[int, ...], ...]] = {}
        self.start()

    def start(self) -> None:
        """A run begins."""
        self._position = 0
        self._begin = 0.0

    def instrument(self, _: Any, name: str, before: bool, __: Any, *arguments: Any) -> int:
        """Called by the virtual machine before and after each call; 0 lets it go on."""
        now = time.perf_counter()
        if before:
            key = self._position, name
            if key not in self.shapes:
                tensors = (a for a in arguments if hasattr(a, "shape"))
                self.shapes[key] = tuple(tuple(map(int, tensor.shape)) for tensor in tensors)
            self._begin = time.perf_counter()
            return 0
        key = self._position, name
        seconds = now - self._begin
        self.least[key] = min(seconds, self.least.get(key, seconds))
        self._position += 1
        return 0
