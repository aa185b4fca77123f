"""What this machine can do at its best, and how fast it is right now.

Kernels compiled on the spot, so that no C compiler is needed: fused multiply-adds in registers
(peak FLOP/s; their speed around a sample also tells whether the processor was disturbed), a sum and
a copy (bandwidth by working set). Together they are the roofline (Williams et al., CACM 2009).
"""

from __future__ import annotations

import math
import statistics
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import tvm
from tvm.script import tirx as T

from tvmext.arch import CudaArch, from_device, from_target, to_target
from tvmext.artifact import ArtifactMetadata
from tvmext.runtime.threads import use_threads

from .host import cpu_name

CHAINS = 12
"""Independent accumulators: more than FMA latency times throughput, fewer than 16 registers."""

PROBE_SECONDS = 50e-6
BANDWIDTH_BYTES = tuple(1 << power for power in range(14, 29, 2))
"""Working sets, from within L1 to beyond L2."""


class Roof(Protocol):
    """What a machine can do at its best: operations per second, and bytes per second."""

    @property
    def peak(self) -> float: ...

    def bandwidth_at(self, size: float) -> float: ...

    def roofline(self, flops: float, bytes_moved: float) -> float: ...


def roof_of(metadata: ArtifactMetadata, threads: int) -> Roof:
    """The limits of this machine for a library: measured for CPUs, the data sheet's for GPUs."""
    arch = from_target(metadata.target)
    if not isinstance(arch, CudaArch):
        return Machine(threads)
    halves = any(spec.dtype in ("float16", "bfloat16") for spec in metadata.inputs)
    return DataSheet(arch, matrix=halves or metadata.options.tf32)


@dataclass(frozen=True)
class DataSheet:
    """The limits of a GPU by its data sheet; `matrix` counts its matrix instructions."""

    arch: CudaArch
    matrix: bool

    @property
    def peak(self) -> float:
        fma = self.arch.matrix_fma if self.matrix else self.arch.fp32_fma
        return 2 * fma * self.arch.sms * self.arch.ghz * 1e9

    def bandwidth_at(self, size: float) -> float:
        return self.arch.dram_gb_s * 1e9

    def roofline(self, flops: float, bytes_moved: float) -> float:
        return max(flops / self.peak, bytes_moved / self.bandwidth_at(bytes_moved))


class Machine:
    """This machine with `threads` threads: calibrated when created, in about a second."""

    def __init__(self, threads: int) -> None:
        self.threads = threads
        use_threads(threads)
        self.arch = from_device()
        lanes = self.arch.vector_lanes("float32")
        library = tvm.compile(kernels(threads, lanes), tvm.target.Target(to_target(self.arch)))
        self._fma, self._sum, self._copy = library["fma"], library["sum"], library["copy"]
        self._flops = 2 * CHAINS * lanes * threads
        self._seed = tvm.runtime.tensor(np.array([0.999, 0.5], "float32"))
        self._sums = tvm.runtime.empty((threads, CHAINS, lanes), "float32")
        self._lanes = lanes
        self._rates: deque[float] = deque(maxlen=2000)
        self._steps = self._steps_of_a_probe()
        for _ in range(300):
            self.probe()
        rates = {s: max(self._sum_rate(s), self._copy_rate(s)) for s in BANDWIDTH_BYTES}
        # What is smaller is at least as fast; where it seems not, the call itself was measured.
        self.bandwidth = {s: max(rates[t] for t in rates if t >= s) for s in rates}

    @property
    def peak(self) -> float:
        """fp32 FLOP/s of the undisturbed machine: what one probe in twenty of late exceeded."""
        return statistics.quantiles(self._rates, n=20)[-1]

    def probe(self) -> float:
        """FLOP/s right now: the best of a few short runs, the first of which starts cold."""
        best = float("inf")
        for _ in range(3 * self.threads):
            start = time.perf_counter()
            self._fma(self._seed, self._sums, self._steps)
            best = min(best, time.perf_counter() - start)
        rate = self._steps * self._flops / best
        self._rates.append(rate)
        return rate

    def roofline(self, flops: float, bytes_moved: float) -> float:
        """Seconds below which this machine cannot do `flops` and touch `bytes_moved` once."""
        return max(flops / self.peak, bytes_moved / self.bandwidth_at(bytes_moved))

    def bandwidth_at(self, size: float) -> float:
        """Bytes per second of a working set of `size` bytes, interpolated by its logarithm."""
        sizes = np.log([float(s) for s in self.bandwidth])
        return float(np.interp(math.log(max(size, 1)), sizes, list(self.bandwidth.values())))

    def facts(self) -> dict[str, Any]:
        """For a report: "cpu", "threads", "peak_gflops", and "bandwidth_gb_s" by bytes."""
        return {
            "cpu": cpu_name(),
            "family": self.arch.family,
            "threads": self.threads,
            "peak_gflops": round(self.peak / 1e9, 1),
            "bandwidth_gb_s": {str(s): round(b / 1e9, 1) for s, b in self.bandwidth.items()},
        }

    def _steps_of_a_probe(self) -> int:
        steps = 1000
        while True:
            start = time.perf_counter()
            self._fma(self._seed, self._sums, steps)
            if time.perf_counter() - start > PROBE_SECONDS:
                return steps
            steps *= 2

    def _sum_rate(self, size: int) -> float:
        """Bytes per second of reading `size` bytes."""
        source = self._rows(size, CHAINS)
        return _best_rate(lambda: self._sum(source, self._sums), source.numpy().nbytes)

    def _copy_rate(self, size: int) -> float:
        """Bytes per second of reading and writing `size` bytes in total."""
        source, target = self._rows(size / 2, 1), self._rows(size / 2, 1)
        return _best_rate(lambda: self._copy(source, target), 2 * source.numpy().nbytes)

    def _rows(self, size: float, vectors: int) -> tvm.runtime.Tensor:
        """About `size` bytes as (threads, rows, vectors, lanes)."""
        rows = max(1, int(size) // (4 * self._lanes * vectors * self.threads))
        return tvm.runtime.tensor(np.ones((self.threads, rows, vectors, self._lanes), "float32"))


def _best_rate(call: Callable[[], object], moved: int) -> float:
    """Bytes per second of the fastest of some calls, each of which moves `moved` bytes."""
    calls = max(1, (1 << 20) // moved)
    best = 0.0
    for _ in range(20):
        start = time.perf_counter()
        for _ in range(calls):
            call()
        best = max(best, moved * calls / (time.perf_counter() - start))
    return best


def kernels(threads: int, lanes: int) -> tvm.IRModule:
    """``fma(constants, results, steps)``, ``sum(source, results)``, ``copy(source, target)``.

    Every thread has its part of each array, along the first axis.
    """

    @T.prim_func(s_tir=True)
    def fma(constants: T.handle, results: T.handle, steps: T.int64) -> None:
        T.func_attr({"global_symbol": "fma", "tirx.noalias": True})
        seed = T.match_buffer(constants, (2,), "float32")
        sums = T.match_buffer(results, (threads, CHAINS, lanes), "float32")
        for thread in T.parallel(threads):
            with T.sblock("sums"):
                local = T.sblock_alloc_buffer((CHAINS, lanes), "float32", scope="local")
                for chain in T.unroll(CHAINS):
                    for lane in T.vectorized(lanes):
                        local[chain, lane] = T.float32(0)
                for _step in range(steps):
                    for chain in T.unroll(CHAINS):
                        for lane in T.vectorized(lanes):
                            local[chain, lane] = local[chain, lane] * seed[0] + seed[1]
                for chain in T.unroll(CHAINS):
                    for lane in T.vectorized(lanes):
                        sums[thread, chain, lane] = local[chain, lane]

    @T.prim_func(s_tir=True)
    def add(source: T.handle, results: T.handle) -> None:
        T.func_attr({"global_symbol": "sum", "tirx.noalias": True})
        rows = T.int64()
        a = T.match_buffer(source, (threads, rows, CHAINS, lanes), "float32")
        sums = T.match_buffer(results, (threads, CHAINS, lanes), "float32")
        for thread in T.parallel(threads):
            with T.sblock("sums"):
                local = T.sblock_alloc_buffer((CHAINS, lanes), "float32", scope="local")
                for chain in T.unroll(CHAINS):
                    for lane in T.vectorized(lanes):
                        local[chain, lane] = T.float32(0)
                for row in range(rows):
                    for chain in T.unroll(CHAINS):
                        for lane in T.vectorized(lanes):
                            local[chain, lane] = local[chain, lane] + a[thread, row, chain, lane]
                for chain in T.unroll(CHAINS):
                    for lane in T.vectorized(lanes):
                        sums[thread, chain, lane] = local[chain, lane]

    @T.prim_func(s_tir=True)
    def copy(source: T.handle, target: T.handle) -> None:
        T.func_attr({"global_symbol": "copy", "tirx.noalias": True})
        rows = T.int64()
        a = T.match_buffer(source, (threads, rows, 1, lanes), "float32")
        b = T.match_buffer(target, (threads, rows, 1, lanes), "float32")
        for thread in T.parallel(threads):
            for row in range(rows):
                for lane in T.vectorized(lanes):
                    b[thread, row, 0, lane] = a[thread, row, 0, lane]

    return tvm.IRModule({"fma": fma, "sum": add, "copy": copy})
