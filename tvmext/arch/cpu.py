"""CPUs: vector units, memory levels, cores; families, and this machine."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tvmext.errors import OptionError

from .common import dtype_bits


@dataclass(frozen=True)
class CpuArch:
    """A CPU as the schedules see it. Sizes in bytes; memory figures are per core.

    `features` are LLVM's names. `fma_units` counts full-width vector FMAs per cycle; where units
    are narrower than vectors, `unit_bits` is their width. `ghz` and `dram_gb_s` scale estimates of
    time; they decide what is worth a parallel launch, nothing else.
    """

    family: str
    isa: str
    mcpu: str
    vector_bits: int
    vector_registers: int
    fma_units: int
    l1_bytes: int
    l2_bytes: int
    l3_bytes: int
    line_bytes: int = 64
    cores: int = 1
    ghz: float = 2.5
    dram_gb_s: float = 10.0
    features: frozenset[str] = field(default_factory=frozenset)
    unit_bits: int = 0

    @property
    def has_vnni(self) -> bool:
        """8-bit dot products of four: VNNI on x86, SDOT/UDOT on Arm."""
        return bool(self.features & {"avx512vnni", "avxvnni", "dotprod"})

    @property
    def has_bf16(self) -> bool:
        """bfloat16 dot products."""
        return bool(self.features & {"avx512bf16", "bf16"})

    @property
    def has_fp16(self) -> bool:
        """Arithmetic on float16 vectors (conversion alone does not count)."""
        return bool(self.features & {"avx512fp16", "fullfp16"})

    @property
    def has_masks(self) -> bool:
        """Mask registers: a part of a vector is loaded and stored like a whole one (AVX-512)."""
        return self.isa == "x86_64" and self.vector_bits == 512

    def vector_lanes(self, dtype: str) -> int:
        """Elements of `dtype` (a NumPy or TVM name; bool counts as a byte) in a vector register."""
        return max(1, self.vector_bits // dtype_bits(dtype))

    def fmas_per_cycle(self, bits: int) -> int:
        """FMAs on vectors of `bits` in a cycle."""
        return self.fma_units * self.vector_bits // max(bits, self.unit_bits or self.vector_bits)

    @property
    def fp32_gflops(self) -> float:
        """Peak of one core: lanes x 2 operations x units x clock."""
        return self.vector_lanes("float32") * 2 * self.fma_units * self.ghz

    def describe(self) -> list[tuple[str, str]]:
        """(what, value) lines for people."""
        abilities = [
            name
            for name, has in (
                ("8-bit dot products", self.has_vnni),
                ("bfloat16", self.has_bf16),
                ("float16", self.has_fp16),
            )
            if has
        ]
        return [
            ("family", f"{self.family} ({self.isa}, code for {self.mcpu})"),
            ("vectors", f"{self.vector_registers} registers of {self.vector_bits} bits"),
            ("FMA units", f"{self.fma_units}, {self.fp32_gflops:.0f} GFLOP/s fp32 per core"),
            ("also", ", ".join(abilities) or "nothing beyond float32"),
            ("caches", " / ".join(map(_size, (self.l1_bytes, self.l2_bytes, self.l3_bytes)))),
            ("cache line", f"{self.line_bytes} bytes"),
            ("cores", f"{self.cores} at about {self.ghz:g} GHz"),
            ("memory", f"about {self.dram_gb_s:g} GB/s per core"),
        ]


# Figures of a typical member of each family, used where a target says no more. Sources:
#   x86-64, x86-64-v2   psABI x86-64 levels for registers; Nehalem caches and clock: Intel 64 and
#                       IA-32 Optimization Reference Manual (248966), 2009 edition, table 2-5.
#                       Its units multiply and add apart; one of each counts as one FMA
#   x86-64-v3 (AVX2)    Haswell: same manual, section 2.4, tables 2-10 to 2-12 (two FMA units)
#   x86-64-v4 (AVX-512) Skylake server: same manual, section 2.2 (two FMA units, 1 MiB L2)
#   znver4              Software Optimization Guide for the AMD Zen 4 Microarchitecture (57647),
#                       section 2.11: a 512-bit operation takes a unit for two cycles
#   aarch64 NEON        Arm Neoverse N1 Software Optimization Guide, section 2.1 (two FP pipes),
#                       and Technical Reference Manual, section 1.2 (64 KiB L1, 1 MiB L2)
#   aarch64 SVE         Arm Neoverse V1 Software Optimization Guide, section 2.1 (two 256-bit SVE
#                       pipes) and Technical Reference Manual, section 1.2
# dram_gb_s: STREAM triad with one thread on machines of the family, rounded down to be careful.
KIB, MIB = 1 << 10, 1 << 20
FAMILIES: Mapping[str, CpuArch] = {
    arch.mcpu if arch.isa == "x86_64" else arch.family: arch
    for arch in (
        CpuArch(
            "SSE2", "x86_64", "x86-64", 128, 16, 1, 32 * KIB, 256 * KIB, 8 * MIB, 64, 1, 2.7, 8
        ),
        CpuArch(
            "SSE4.2", "x86_64", "x86-64-v2", 128, 16, 1, 32 * KIB, 256 * KIB, 8 * MIB, 64, 1, 2.7, 8
        ),
        CpuArch(
            "AVX2", "x86_64", "x86-64-v3", 256, 16, 2, 32 * KIB, 256 * KIB, 8 * MIB, 64, 1, 3.0, 10
        ),
        CpuArch(
            "AVX-512", "x86_64", "x86-64-v4", 512, 32, 2, 32 * KIB, MIB, 32 * MIB, 64, 1, 2.7, 12
        ),
        CpuArch(
            "Zen 4",
            "x86_64",
            "znver4",
            512,
            32,
            1,
            32 * KIB,
            MIB,
            32 * MIB,
            64,
            1,
            2.6,
            12,
            unit_bits=256,
        ),
        CpuArch("NEON", "aarch64", "generic", 128, 32, 2, 64 * KIB, MIB, 32 * MIB, 64, 1, 2.6, 15),
        CpuArch("SVE", "aarch64", "generic", 256, 32, 2, 64 * KIB, MIB, 32 * MIB, 64, 1, 2.6, 20),
    )
}

# x86-64 psABI, section 3.1.1: what each level adds, by the names in /proc/cpuinfo and by LLVM's.
_LEVELS = (
    ("x86-64-v4", {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"}),
    ("x86-64-v3", {"avx2", "bmi1", "bmi2", "f16c", "fma", "movbe"}),
    ("x86-64-v2", {"cx16", "popcnt", "sse4_1", "sse4_2", "ssse3"}),
)
# Extensions beyond the levels that generated code may use: /proc/cpuinfo name -> LLVM name.
_EXTRAS = {
    "avx_vnni": "avxvnni",
    "avx512_vnni": "avx512vnni",
    "avx512_bf16": "avx512bf16",
    "avx512_fp16": "avx512fp16",
    "avx512vbmi": "avx512vbmi",
    "avx512_vbmi2": "avx512vbmi2",
    "amx_tile": "amx-tile",
    "amx_int8": "amx-int8",
    "amx_bf16": "amx-bf16",
    "gfni": "gfni",
    "asimddp": "dotprod",
    "asimdhp": "fullfp16",
    "bf16": "bf16",
    "i8mm": "i8mm",
    "sve": "sve",
    "sve2": "sve2",
}


def from_fields(fields: Mapping[str, Any]) -> CpuArch:
    """The CPU that the fields of a target name, without asking any hardware.

    Without mcpu it is the lowest level of its instruction set, whose code runs everywhere.
    """
    triple = str(fields.get("mtriple", ""))
    isa = "aarch64" if triple.startswith(("aarch64", "arm64")) else "x86_64"
    default = "x86-64" if isa == "x86_64" else "generic"
    mcpu = str(fields.get("mcpu", default))
    mattr = _split(fields.get("mattr", ()))
    features = {name[1:] for name in mattr if name.startswith("+")}
    if foreign := sorted(features - _KNOWN):
        raise OptionError(
            f"target feature '{foreign[0]}' cannot be added to a CPU",
            hint=f"-mcpu with a CPU that has it, or one of {', '.join(sorted(_KNOWN))}",
        )
    if not mcpu.startswith("x86-64"):
        features |= _llvm_features(mcpu, triple)
    features -= {name[1:] for name in mattr if name.startswith("-")}
    base = _family(isa, mcpu, features)
    cores = int(fields.get("num-cores", 1))
    return replace(base, mcpu=mcpu, cores=cores, features=frozenset(features & _KNOWN))


def from_device() -> CpuArch:
    """This machine: /proc/cpuinfo for what it can do, /sys for caches, the affinity mask for cores.

    LLVM's own guess is not used: on virtual machines it goes by the model number and names an older
    CPU than the flags show.
    """
    isa = "aarch64" if platform.machine() in ("aarch64", "arm64") else "x86_64"
    info = _cpuinfo()
    flags = set(info.get("flags", info.get("features", "")).split())
    features = {llvm for flag, llvm in _EXTRAS.items() if flag in flags}
    mcpu = "generic"
    if isa == "x86_64":
        mcpu = _level(flags)
        if mcpu != "x86-64-v4":
            features = {name for name in features if not name.startswith(("avx512", "amx"))}
    zen4 = info.get("vendor_id") == "AuthenticAMD" and info.get("cpu family") == "25"
    halves = zen4 and mcpu == "x86-64-v4"
    base = FAMILIES["znver4"] if halves else _family(isa, mcpu, features)
    caches = _caches()
    clock = float(info.get("cpu mhz", 0)) / 1000
    return replace(
        base,
        mcpu=mcpu,
        l1_bytes=caches.get(1, base.l1_bytes),
        l2_bytes=caches.get(2, base.l2_bytes),
        l3_bytes=caches.get(3, base.l3_bytes),
        line_bytes=int(info.get("cache_alignment", base.line_bytes)),
        cores=len(physical_cores()),
        ghz=round(clock, 2) or base.ghz,
        features=frozenset(features),
    )


def to_target(arch: CpuArch) -> dict[str, Any]:
    """The TVM target, as a dict, whose code uses all of `arch`."""
    mattr = [f"+{name}" for name in sorted(arch.features)]
    if arch.vector_bits == 512:
        # LLVM splits 512-bit vectors in two on most CPUs, to spare the clock of the first ones.
        mattr.append("-prefer-256-bit")
    target: dict[str, Any] = {"kind": "llvm", "mcpu": arch.mcpu, "num-cores": arch.cores}
    if mattr:
        target["mattr"] = mattr
    if arch.isa != "x86_64" and platform.machine() not in ("aarch64", "arm64"):
        target["mtriple"] = "aarch64-linux-gnu"
    return target


def physical_cores() -> tuple[int, ...]:
    """The cores that this process may use, each as the number of its first hardware thread."""
    cores: dict[str, int] = {}
    for cpu in sorted(os.sched_getaffinity(0)):
        path = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list")
        cores.setdefault(path.read_text().strip() if path.exists() else str(cpu), cpu)
    return tuple(cores.values())


def _family(isa: str, mcpu: str, features: set[str]) -> CpuArch:
    if isa == "aarch64":
        return FAMILIES["SVE" if "sve" in features else "NEON"]
    if mcpu in FAMILIES:
        return FAMILIES[mcpu]
    if "avx512f" in features and "avx512vl" in features:
        return FAMILIES["x86-64-v4"]
    if "avx2" in features and "fma" in features:
        return FAMILIES["x86-64-v3"]
    return FAMILIES["x86-64-v2" if "sse4.2" in features else "x86-64"]


def _llvm_features(mcpu: str, triple: str) -> set[str]:
    """What LLVM knows about a CPU by name."""
    from tvm.target import Target, codegen

    fields = {"kind": "llvm", "mcpu": mcpu}
    if triple:
        fields["mtriple"] = triple
    if not codegen.llvm_is_valid_cpu(mcpu, triple or codegen.llvm_get_system_triple()):
        raise OptionError(
            f"LLVM does not know a CPU named '{mcpu}'", hint="a name such as x86-64-v3 or znver4"
        )
    return set(map(str, codegen.llvm_get_cpu_features(Target(fields))))


_KNOWN = frozenset(_EXTRAS.values())


def _split(mattr: str | Iterable[str]) -> list[str]:
    return mattr.split(",") if isinstance(mattr, str) else [str(name) for name in mattr]


# ------------------------------------------------------------------ reading hardware


def _cpuinfo() -> dict[str, str]:
    """The first processor of /proc/cpuinfo, keys in lower case."""
    info: dict[str, str] = {}
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return info
    for line in text.partition("\n\n")[0].splitlines():
        key, _, value = line.partition(":")
        info[key.strip().lower()] = value.strip()
    return info


def _level(flags: set[str]) -> str:
    """The x86-64 level that the flags add up to; every level needs those below it."""
    level = "x86-64"
    for name, needed in reversed(_LEVELS):
        if not needed <= flags:
            break
        level = name
    return level


def _caches() -> dict[int, int]:
    """{level: bytes} of the data and unified caches of the first core."""
    sizes: dict[int, int] = {}
    units = {"K": KIB, "M": MIB, "G": 1 << 30}
    for index in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*"):
        try:
            if (index / "type").read_text().strip() == "Instruction":
                continue
            size = (index / "size").read_text().strip()
            sizes[int((index / "level").read_text())] = int(size[:-1]) * units[size[-1]]
        except (OSError, ValueError, KeyError):
            continue
    return sizes


def _size(count: int) -> str:
    return f"{count // MIB} MiB" if count >= MIB else f"{count // KIB} KiB"
