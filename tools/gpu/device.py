"""A GPU as an instrument: events around a call, its cache emptied before it, its clocks."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

Call = Callable[[], object]

QUERIES = (
    "clocks.sm",
    "clocks.max.sm",
    "clocks.mem",
    "temperature.gpu",
    "power.draw",
    "clocks_event_reasons.active",
)


@dataclass(frozen=True)
class Limits:
    """What bounds a case: FLOP/s by dtype, bytes/s of the memory, bytes of the last cache."""

    flops: dict[str, float]
    bytes_per_second: float
    cache_bytes: int

    def seconds(self, flops: float, size: float, dtype: str) -> float:
        """The roofline: no machine with these limits is faster."""
        rate = self.flops.get(dtype, self.flops["float32"])
        return max(flops / rate, size / self.bytes_per_second)


class Device(Protocol):
    """What is timed on. `target` is what tvmext and TVM compile for."""

    target: str
    limits: Limits

    def describe(self) -> dict[str, Any]: ...

    def array(self, values: Any) -> Any:
        """A TVM tensor of the device with these values."""

    def seconds(self, call: Call) -> float:
        """What one call takes, by the device's own clock, from cold caches."""

    def speed(self) -> float:
        """The clock as a part of its maximum."""

    def alive(self) -> bool:
        """Whether work can still be launched; not after a kernel has read out of bounds."""


class Gpu:
    """The first GPU of this machine; events of the CUDA runtime on the default stream.

    All contenders work on that stream. The memory that is overwritten before each call is twice as
    large as the cache, and keeps the GPU busy while the call is being launched.
    """

    def __init__(self) -> None:
        from cuda.bindings import runtime

        from tvmext.arch.cuda import from_device
        from tvmext.arch.cuda_driver import load_runtime

        self.arch = from_device()
        load_runtime()
        self.target = f"cuda -arch={self.arch.compute}"
        self.limits = limits(self.arch)
        self._cuda = runtime
        self._events = [self._checked(runtime.cudaEventCreate()) for _ in range(2)]
        self._size = 2 * self.arch.l2_bytes
        self._memory = self._checked(runtime.cudaMalloc(self._size))

    def describe(self) -> dict[str, Any]:
        return {
            "device": self.arch.device,
            "arch": self.arch.compute,
            "driver": self._checked(self._cuda.cudaDriverGetVersion()),
            "clocks": clocks(),
        }

    def array(self, values: Any) -> Any:
        import tvm

        return tvm.runtime.tensor(values, tvm.cuda())

    def seconds(self, call: Call) -> float:
        begin, end = self._events
        self._checked(self._cuda.cudaMemsetAsync(self._memory, 0, self._size, 0))
        self._checked(self._cuda.cudaEventRecord(begin, 0))
        call()
        self._checked(self._cuda.cudaEventRecord(end, 0))
        self._checked(self._cuda.cudaEventSynchronize(end))
        return float(self._checked(self._cuda.cudaEventElapsedTime(begin, end))) / 1e3

    def speed(self) -> float:
        found = clocks()
        return found.get("clocks.sm", 1.0) / (found.get("clocks.max.sm") or 1.0)

    def alive(self) -> bool:
        (status,) = self._cuda.cudaDeviceSynchronize()
        return int(status) == 0

    @staticmethod
    def _checked(result: tuple[Any, ...]) -> Any:
        status, *values = result
        if int(status):
            raise RuntimeError(f"CUDA failed with {status!r}")
        return values[0] if values else None


def limits(arch: Any) -> Limits:
    """The peaks of a `CudaArch`; tf32 has half the rate of float16 (its docstring)."""
    half = arch.matrix_gflops * 1e9
    rates = {
        "float16": half,
        "bfloat16": half,
        "tfloat32": half / 2,
        "float32": arch.fp32_gflops * 1e9,
    }
    return Limits(rates, arch.dram_gb_s * 1e9, arch.l2_bytes)


def clocks() -> dict[str, float]:
    """What nvidia-smi says of the first GPU, numbers only; nothing where it is not installed."""
    command = ["nvidia-smi", "-i", "0", f"--query-gpu={','.join(QUERIES)}"]
    try:
        done = subprocess.run(
            [*command, "--format=csv,noheader,nounits"],
            capture_output=True,
            text=True,
            timeout=20,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return {}
    return read_clocks(done.stdout)


def read_clocks(text: str) -> dict[str, float]:
    """A line of nvidia-smi's CSV by the names of `QUERIES`."""
    values = text.splitlines()[0].split(",") if text.strip() else []
    return {
        name: found for name, value in zip(QUERIES, values) if (found := _number(value)) is not None
    }


def _number(text: str) -> float | None:
    """Decimal or hexadecimal; None for what is no number, such as "[N/A]"."""
    try:
        return float(int(text, 16)) if "0x" in text else float(text)
    except ValueError:
        return None
