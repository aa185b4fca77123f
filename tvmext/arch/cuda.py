"""NVIDIA GPUs: multiprocessors, their memories, matrix instructions and copy engines."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from tvmext.errors import OptionError

from .cuda_driver import Driver

KIB, MIB = 1 << 10, 1 << 20
WARP = 32
"""Threads that execute together, on every compute capability."""


@dataclass(frozen=True)
class CudaArch:
    """An NVIDIA GPU as the schedules see it. Sizes in bytes; "sm" is a streaming multiprocessor.

    `compute` is what code is generated for ("sm_80", "sm_90a"). `fp32_fma` and `matrix_fma` count
    multiply-adds per cycle and sm: of ordinary float32 arithmetic, and of float16 matrix
    instructions that add up in float32 (tfloat32 has half of it, int8 and fp8 twice as many where
    there are instructions for them).
    """

    compute: str
    device: str
    """The member of the family whose figures these are; shown to people, read by no rule."""
    sms: int
    ghz: float
    shared_per_sm: int
    shared_per_block: int
    """The most that a block may ask for; beyond `STATIC_SHARED` it has to be asked for."""
    threads_per_sm: int
    l2_bytes: int
    dram_gb_s: float
    fp32_fma: int
    matrix_fma: int
    registers_per_sm: int = 1 << 16
    registers_per_thread: int = 255
    threads_per_block: int = 1024

    @property
    def capability(self) -> tuple[int, int]:
        """("sm_90a" -> (9, 0)): what the compute capability is compared by."""
        return _capability(self.compute)

    @property
    def matrix_types(self) -> frozenset[str]:
        """Element types of warp-level matrix instructions (PTX ISA, mma.sync, Target ISA notes)."""
        types = {"float16"}
        if self.capability >= (7, 5):
            types |= {"int8", "uint8"}
        if self.capability >= (8, 0):
            types |= {"bfloat16", "tfloat32"}
        if self.capability >= (8, 9):
            types |= {"float8_e4m3fn", "float8_e5m2"}
        return frozenset(types)

    @property
    def has_async_copy(self) -> bool:
        """cp.async: global to shared memory without registers (PTX ISA: sm_80 or higher)."""
        return self.capability >= (8, 0)

    @property
    def has_tma(self) -> bool:
        """Bulk tensor copies (PTX ISA, cp.async.bulk.tensor: sm_90 or higher)."""
        return self.capability >= (9, 0)

    @property
    def has_wgmma(self) -> bool:
        """Warpgroup matrix instructions, which exist in code for sm_90a only (PTX ISA, wgmma)."""
        return self.compute == "sm_90a"

    @property
    def fp32_gflops(self) -> float:
        """Peak of ordinary float32 arithmetic."""
        return self.sms * self.ghz * 2 * self.fp32_fma

    @property
    def matrix_gflops(self) -> float:
        """Peak of float16 matrix instructions."""
        return self.sms * self.ghz * 2 * self.matrix_fma

    def describe(self) -> list[tuple[str, str]]:
        """(what, value) lines for people."""
        engines = [
            name
            for name, has in (
                ("cp.async", self.has_async_copy),
                ("TMA", self.has_tma),
                ("wgmma", self.has_wgmma),
            )
            if has
        ]
        return [
            ("family", f"{self.compute} (figures of {self.device})"),
            ("multiprocessors", f"{self.sms} at {self.ghz:g} GHz"),
            ("float32", f"{self.fp32_gflops / 1e3:.0f} TFLOP/s"),
            ("matrices", f"{self.matrix_gflops / 1e3:.0f} TFLOP/s float16"),
            ("matrix types", ", ".join(sorted(self.matrix_types))),
            ("also", ", ".join(engines) or "no asynchronous copies"),
            ("shared memory", f"{self.shared_per_block // KIB} KiB per block"),
            ("L2", f"{self.l2_bytes // MIB} MiB"),
            ("memory", f"{self.dram_gb_s:g} GB/s"),
        ]


STATIC_SHARED = 48 * KIB
"""Shared memory that a block has without asking (CUDA C++ Programming Guide, 20.1)."""

# Sources. Shared memory and threads: CUDA C++ Programming Guide 13.0, "Technical Specifications per
# Compute Capability". sms, boost clock, L2 and memory of the member that is named:
#   V100 SXM2   Volta architecture whitepaper (WP-08608), table 1: 125 TFLOP/s of matrices
#   T4          Turing architecture whitepaper (WP-09183), table 6 in appendix C: 65 TFLOP/s
#   A100 SXM    Ampere (GA100) architecture whitepaper, table 1: 312 TFLOP/s; 80 GB datasheet
#   A10         datasheet (2021): 125 TFLOP/s
#   Orin        Jetson AGX Orin technical brief (2022), 64 GB: 2048 cores, 1.3 GHz, 204.8 GB/s
#   L4          Ada architecture whitepaper and L4 datasheet: 121 TFLOP/s without sparsity
#   H100 SXM    Hopper architecture whitepaper, table 1: 989 TFLOP/s at 1.83 GHz
#   B200        Blackwell datasheet (HGX B200): 2250 TFLOP/s per GPU, 8 TB/s
#   RTX 5090    RTX Blackwell architecture whitepaper, appendix A: 209.5 TFLOP/s with float32 sums
# matrix_fma follows from the TFLOP/s: rate / (sms x clock x 2).
FAMILIES: Mapping[str, CudaArch] = {
    row.compute: row
    for row in (
        CudaArch("sm_70", "V100 SXM2", 80, 1.53, 96 * KIB, 96 * KIB, 2048, 6 * MIB, 900, 64, 512),
        CudaArch("sm_75", "T4", 40, 1.59, 64 * KIB, 64 * KIB, 1024, 4 * MIB, 320, 64, 512),
        CudaArch(
            "sm_80", "A100 SXM", 108, 1.41, 164 * KIB, 163 * KIB, 2048, 40 * MIB, 2039, 64, 1024
        ),
        CudaArch("sm_86", "A10", 72, 1.695, 100 * KIB, 99 * KIB, 1536, 6 * MIB, 600, 128, 512),
        CudaArch("sm_87", "Orin", 16, 1.3, 164 * KIB, 163 * KIB, 1536, 4 * MIB, 204, 128, 1024),
        CudaArch("sm_89", "L4", 58, 2.04, 100 * KIB, 99 * KIB, 1536, 48 * MIB, 300, 128, 512),
        CudaArch(
            "sm_90", "H100 SXM", 132, 1.83, 228 * KIB, 227 * KIB, 2048, 50 * MIB, 3352, 128, 2048
        ),
        CudaArch(
            "sm_100", "B200", 148, 1.85, 228 * KIB, 227 * KIB, 2048, 126 * MIB, 8000, 128, 4096
        ),
        CudaArch(
            "sm_120", "RTX 5090", 170, 2.41, 100 * KIB, 99 * KIB, 1536, 96 * MIB, 1792, 128, 256
        ),
    )
}

NAMES: Mapping[str, str] = {
    "v100": "sm_70",
    "t4": "sm_75",
    "a100": "sm_80",
    "a10": "sm_86",
    "l4": "sm_89",
    "h100": "sm_90a",
    "h200": "sm_90a",
    "b200": "sm_100a",
    "rtx5090": "sm_120a",
}
"""Names of GPUs that may stand for what code is generated for."""


def from_name(name: str) -> CudaArch:
    """The GPU that "sm_90a" or a name such as "h100" means. Raises OptionError for others."""
    if "," in name:
        raise OptionError(
            f"'{name}' names several GPUs; a library holds code for one, with its own schedules",
            hint="compile once for each, and load the library that fits the GPU",
        )
    compute = NAMES.get(name.lower(), name)
    if not re.fullmatch(r"sm_\d{2,3}[af]?", compute):
        raise OptionError(f"'{name}' is not a CUDA architecture", hint=_CHOICES)
    wanted = _capability(compute)
    older = [row for row in FAMILIES.values() if row.capability <= wanted]
    if not older:
        raise OptionError(f"{compute} is older than what is supported", hint=_CHOICES)
    return replace(max(older, key=lambda row: row.capability), compute=compute)


def from_device() -> CudaArch:
    """The first GPU of this machine, asked through the driver.

    Raises OptionError where there is no driver or no GPU. What the driver does not tell (rates per
    cycle) is that of the family.
    """
    try:
        query = Driver()
    except OSError as error:
        raise OptionError(str(error), hint=f"name what to compile for: {_CHOICES}") from None
    major, minor = query.attribute("capability major"), query.attribute("capability minor")
    compute = f"sm_{major}{minor}"
    # Instructions of one generation only (wgmma) exist in code for that generation alone.
    base = from_name(compute + "a" if (major, minor) >= (9, 0) else compute)
    bits = query.attribute("memory bus bits")
    return replace(
        base,
        device=query.name,
        sms=query.attribute("multiprocessors"),
        ghz=query.attribute("clock kHz") / 1e6 or base.ghz,
        shared_per_sm=query.attribute("shared bytes per multiprocessor"),
        shared_per_block=query.attribute("shared bytes per block, opted in"),
        threads_per_sm=query.attribute("threads per multiprocessor"),
        l2_bytes=query.attribute("L2 bytes"),
        # Two transfers per clock of the memory.
        dram_gb_s=2 * query.attribute("memory clock kHz") * bits / 8e6 or base.dram_gb_s,
        registers_per_sm=query.attribute("registers per multiprocessor"),
    )


def from_fields(fields: Mapping[str, Any]) -> CudaArch:
    """The GPU that the fields of a target name; without "arch" that of this machine."""
    if "arch" in fields:
        return from_name(str(fields["arch"]))
    return from_device()


def to_target(arch: CudaArch) -> dict[str, Any]:
    """The TVM target, as a dict, whose code uses all of `arch`; its host part runs on any CPU."""
    return {
        "kind": "cuda",
        "arch": arch.compute,
        "max_num_threads": arch.threads_per_block,
        "thread_warp_size": WARP,
        "max_shared_memory_per_block": arch.shared_per_block,
        "l2_cache_size_bytes": arch.l2_bytes,
        "host": {"kind": "llvm"},
    }


_CHOICES = f"sm_80, sm_90a, ..., or one of {', '.join(NAMES)}"


def _capability(compute: str) -> tuple[int, int]:
    digits = re.sub(r"\D", "", compute)
    return int(digits[:-1]), int(digits[-1])
