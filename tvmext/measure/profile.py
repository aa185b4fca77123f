"""Where the time of a compiled model goes, call by call."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import tvm

from tvmext.artifact import ArtifactMetadata, KernelCall
from tvmext.frontends.dims import Expr, evaluate, names_of
from tvmext.runtime import CompiledModel
from tvmext.runtime.threads import default_threads

from .machine import Roof, roof_of

BUILTIN = "vm.builtin."
"""How the names of the virtual machine's own functions begin: memory, shapes, checks."""

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Kernel:
    """One call of a kernel: its position in the run, and the least seconds it took."""

    position: int
    name: str
    shapes: tuple[Shape, ...]
    seconds: float

    @property
    def operators(self) -> set[str]:
        """The words of its name without numbers: ``fused_conv2d3_relu1`` has conv2d and relu."""
        return {re.sub(r"\d+$", "", word) for word in self.name.split("_")}


@dataclass(frozen=True)
class Event:
    """One call, of a kernel or a builtin, in the fastest instrumented run; seconds from its
    start."""

    name: str
    start: float
    seconds: float


@dataclass(frozen=True)
class Profile:
    """The kernels of one run in their order, a timeline, and the seconds of a plain run."""

    kernels: tuple[Kernel, ...]
    timeline: tuple[Event, ...]
    total: float


def profile(
    machine: Any,
    run: Callable[[], object],
    runs: int,
    wait: Callable[[], object] = lambda: None,
) -> Profile:
    """Time every call of a kernel in `runs` runs of a virtual machine; the least counts.

    The instrument itself is in the figures; the fastest call of a builtin, which does next to
    nothing, shows what it costs, and that is subtracted. `wait` ends when the device is idle.
    """
    recorder = _Recorder(wait)
    run()
    total = min(_seconds(run, wait) for _ in range(runs))
    machine.set_instrument(recorder.instrument)
    try:
        for _ in range(runs):
            recorder.start()
            run()
            recorder.end()
    finally:
        machine.set_instrument(lambda *_: 0)
    cost = min((s for (_, name), s in recorder.least.items() if _is_builtin(name)), default=0.0)
    kernels = tuple(
        Kernel(position, name, recorder.shapes[position, name], max(0.0, seconds - cost))
        for (position, name), seconds in recorder.least.items()
        if not _is_builtin(name)
    )
    return Profile(kernels, recorder.fastest, total)


def _is_builtin(name: str) -> bool:
    return name.startswith(BUILTIN)


def _seconds(run: Callable[[], object], wait: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    wait()
    return time.perf_counter() - start


class _Recorder:
    """The least seconds and the argument shapes of every call, by (position, name)."""

    def __init__(self, wait: Callable[[], object]) -> None:
        self.least: dict[tuple[int, str], float] = {}
        self.shapes: dict[tuple[int, str], tuple[Shape, ...]] = {}
        self.fastest: tuple[Event, ...] = ()
        self._wait = wait
        self.start()

    def start(self) -> None:
        """A run begins."""
        self._events: list[Event] = []
        self._run = self._begin = time.perf_counter()

    def end(self) -> None:
        """A run is over."""
        if not self.fastest or _length(self._events) < _length(self.fastest):
            self.fastest = tuple(self._events)

    def instrument(self, _: Any, name: str, before: bool, __: Any, *arguments: Any) -> int:
        """Called by the virtual machine before and after each call; 0 lets it go on."""
        if not before:
            self._wait()
        now = time.perf_counter()
        key = len(self._events), name
        if before:
            if key not in self.shapes:
                tensors = (a for a in arguments if hasattr(a, "shape"))
                self.shapes[key] = tuple(tuple(map(int, tensor.shape)) for tensor in tensors)
            self._wait()
            self._begin = time.perf_counter()
            return 0
        seconds = now - self._begin
        self.least[key] = min(seconds, self.least.get(key, seconds))
        self._events.append(Event(name, self._begin - self._run, seconds))
        return 0


def _length(events: Iterable[Event]) -> float:
    return sum(event.seconds for event in events)


@dataclass(frozen=True)
class Row:
    """A kernel call with what the library says of it; `decision` is that of `rule`, as JSON has it.

    `predicted` is the price of that decision, in seconds on one core, free dims at usual sizes.

    `roofline` is the part of what the machine can do that the call reaches: the time that its
    operations or its bytes take at the least, whichever is longer, over its own (Williams et al.,
    CACM 2009). None where the work is not known. The peak is that of float32 arithmetic, the work
    that of the definition: fewer bits, and Winograd's method, may exceed 1.
    """

    kernel: Kernel
    rule: str
    nodes: tuple[str, ...]
    flops: int | None
    bytes: int | None
    roofline: float | None
    decision: Any = None
    predicted: float | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain data; its time in microseconds."""
        return {
            "kernel": self.kernel.name,
            "rule": self.rule,
            "decision": self.decision,
            "us": self.kernel.seconds * 1e6,
            "predicted_us": None if self.predicted is None else self.predicted * 1e6,
            "flops": self.flops,
            "bytes": self.bytes,
            "roofline": self.roofline,
            "shapes": [list(shape) for shape in self.kernel.shapes],
            "nodes": list(self.nodes),
        }


@dataclass(frozen=True)
class ModelProfile:
    """A profile of a compiled model at the sizes of its free dims, and the machine it ran on."""

    model: str
    sizes: Mapping[str, int]
    threads: int
    rows: tuple[Row, ...]
    timeline: tuple[Event, ...]
    seconds: float
    roof: Roof

    def to_json(self) -> dict[str, Any]:
        """Plain data; times in microseconds."""
        return {
            "model": self.model,
            "sizes": dict(self.sizes),
            "threads": self.threads,
            "total_us": self.seconds * 1e6,
            "kernels_us": sum(row.kernel.seconds for row in self.rows) * 1e6,
            "peak_gflops": self.roof.peak / 1e9,
            "kernels": [row.to_json() for row in self.rows],
        }


def profile_model(
    compiled: CompiledModel, inputs: Mapping[str, Any], runs: int = 20, roof: Roof | None = None
) -> ModelProfile:
    """Profile `compiled` on `inputs`; without a `roof` the machine is measured first, in a second.

    Raises what `CompiledModel.run` raises.
    """
    metadata = compiled.metadata
    threads = compiled.num_threads or default_threads()
    roof = roof or roof_of(metadata, threads)
    wait = tvm.cuda().sync if compiled.device == "cuda" else lambda: None
    found = profile(compiled.machine, lambda: compiled.run(inputs), runs, wait)
    sizes = compiled.sizes(inputs)
    made = rows(found.kernels, metadata, sizes, roof)
    return ModelProfile(
        metadata.source, sizes, threads, tuple(made), found.timeline, found.total, roof
    )


def rows(
    kernels: Iterable[Kernel],
    metadata: ArtifactMetadata,
    sizes: Mapping[str, int],
    roof: Roof,
) -> list[Row]:
    """One row for each kernel of the network, measured at the given sizes of the free dims.

    What the library calls besides (weights that are looked up, shapes) is left out.
    """
    made = []
    for kernel, call in _calls_in_order(kernels, metadata.calls):
        flops, moved = _at(call.flops, sizes), _at(call.bytes, sizes)
        share = None
        if flops is not None and moved is not None and kernel.seconds > 0:
            share = roof.roofline(flops, moved) / kernel.seconds
        made_by = metadata.decisions.get(kernel.name, {})
        rule, decision = str(made_by.get("rule", "")), made_by.get("decision")
        price = made_by.get("seconds")
        made.append(Row(kernel, rule, call.nodes, flops, moved, share, decision, price))
    return made


def _calls_in_order(
    kernels: Iterable[Kernel], calls: Sequence[KernelCall]
) -> Iterator[tuple[Kernel, KernelCall]]:
    """Each kernel with the call that it is: the next of its name, from the last one found on."""
    position = 0
    for kernel in kernels:
        order = [*range(position, len(calls)), *range(position)]  # a loop begins again
        number = next((k for k in order if calls[k].kernel == kernel.name), None)
        if number is not None:
            yield kernel, calls[number]
            position = number + 1


def _at(size: int | Expr | None, sizes: Mapping[str, int]) -> int | None:
    return None if size is None or names_of(size) - sizes.keys() else evaluate(size, sizes)
