"""Machines as values: from targets, from this machine, and back to targets."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import FrozenInstanceError, replace

import pytest

from tvmext.arch import FAMILIES, CudaArch, dtype_bits, from_device, from_target, resolve, to_target
from tvmext.arch import cpu as arch_module
from tvmext.arch import cuda as gpus
from tvmext.errors import OptionError


def test_import_and_detection_do_not_load_tvm() -> None:
    code = "import sys, tvmext.arch as a; a.resolve('llvm'); sys.exit('tvm' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    "target, family, bits, registers",
    [
        ("llvm", "SSE2", 128, 16),
        ("llvm -mcpu=x86-64-v3", "AVX2", 256, 16),
        ({"kind": "llvm", "mcpu": "x86-64-v4"}, "AVX-512", 512, 32),
        ('{"kind": "llvm", "mcpu": "znver2"}', "AVX2", 256, 16),
        ("llvm -mcpu=nehalem", "SSE4.2", 128, 16),
        ({"kind": "llvm", "mtriple": "aarch64-linux-gnu", "mcpu": "cortex-a72"}, "NEON", 128, 32),
        ({"kind": "llvm", "mtriple": "aarch64-linux-gnu", "mcpu": "neoverse-v1"}, "SVE", 256, 32),
    ],
)
def test_families_from_targets(target: object, family: str, bits: int, registers: int) -> None:
    arch = from_target(target)
    assert (arch.family, arch.vector_bits, arch.vector_registers) == (family, bits, registers)


def test_features_come_from_the_name_and_from_mattr() -> None:
    assert from_target("llvm -mcpu=znver4").has_bf16
    assert not from_target("llvm -mcpu=skylake-avx512").has_vnni
    assert from_target("llvm -mcpu=x86-64-v4 -mattr=+avx512vnni,+avx512fp16").has_fp16
    assert not from_target("llvm -mcpu=znver4 -mattr=-avx512vnni").has_vnni
    assert from_target("llvm -num-cores=6").cores == 6


def test_target_objects_and_round_trip() -> None:
    import tvm

    arch = from_target("llvm -mcpu=x86-64-v4 -mattr=+avx512bf16 -num-cores=3")
    target = tvm.target.Target(to_target(arch))
    assert from_target(target) == arch
    assert "-prefer-256-bit" in target.attrs["mattr"]


def test_the_names_that_mean_this_machine() -> None:
    import tvm

    device = from_device()
    assert resolve("llvm") == resolve("native") == resolve(tvm.target.Target("llvm")) == device
    assert resolve("llvm -num-cores=1") == replace(device, cores=1)
    assert resolve("llvm -mcpu=x86-64-v3").mcpu == "x86-64-v3"


def test_this_machine_compiles_for_what_it_says() -> None:
    import tvm
    from tvm.target import codegen

    device = from_device()
    target = tvm.target.Target(to_target(device))
    known = set(map(str, codegen.llvm_get_cpu_features(target)))
    assert device.features <= known
    assert device.cores >= 1
    assert 0 < device.l1_bytes <= device.l2_bytes


CPUINFO = """processor\t: 0
cpu MHz\t\t: 3100.000
flags\t\t: {flags}
cache_alignment\t: 64

processor\t: 1
"""
V3 = "cx16 popcnt sse4_1 sse4_2 ssse3 avx2 bmi1 bmi2 f16c fma movbe"
V4 = V3 + " avx512f avx512bw avx512cd avx512dq avx512vl"


@pytest.mark.parametrize(
    "flags, mcpu, features",
    [
        ("sse2", "x86-64", set()),
        (V3 + " avx_vnni", "x86-64-v3", {"avxvnni"}),
        # Without the level below, the flags of AVX-512 do not count.
        (V4.replace("fma", "") + " avx512_vnni", "x86-64-v2", set()),
        (V4 + " avx512_vnni avx512_bf16", "x86-64-v4", {"avx512vnni", "avx512bf16"}),
    ],
)
def test_flags_of_other_machines(
    flags: str, mcpu: str, features: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(arch_module.Path, "read_text", lambda _: CPUINFO.format(flags=flags))
    monkeypatch.setattr(arch_module.platform, "machine", lambda: "x86_64")
    device = from_device()
    assert (device.mcpu, device.ghz) == (mcpu, 3.1)
    assert device.features == features


def test_a_wrong_target_says_what_to_try() -> None:
    with pytest.raises(OptionError, match="does not know a CPU named 'pentium9'"):
        from_target("llvm -mcpu=pentium9")
    with pytest.raises(OptionError, match="without -arch"):
        from_target("cuda")


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("", "kind '' is not supported"),
        ("{mcpu", "is not JSON"),
        ("llvm -mcp=znver4", "option 'mcp' is not known"),
        ("llvm -num-cores=x", "num-cores is 'x'"),
        ("llvm -num-cores=0", "num-cores is '0'"),
        ("llvm -mcpu=x86-64 -mattr=+avx2", "feature 'avx2' cannot be added"),
        ("llvm -mattr=+avx512vnni", "-mattr needs a CPU"),
    ],
)
def test_a_target_that_would_be_ignored_is_refused(target: str, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        resolve(target)


@pytest.mark.parametrize(
    ("name", "compute", "figures_of"),
    [
        ("sm_80", "sm_80", "A100 SXM"),
        ("h100", "sm_90a", "H100 SXM"),
        ("sm_103a", "sm_103a", "B200"),
    ],
)
def test_gpus_by_name(name: str, compute: str, figures_of: str) -> None:
    arch = from_target(f"cuda -arch={name}")
    assert isinstance(arch, CudaArch)
    assert (arch.compute, arch.device) == (compute, figures_of)
    assert arch.has_async_copy
    assert arch.has_wgmma == (compute == "sm_90a")
    assert dict(arch.describe())["shared memory"].endswith("KiB per block")
    assert from_target(to_target(arch)) == arch


def test_rates_are_those_of_the_datasheets() -> None:
    tflops = {
        "sm_80": 312,
        "sm_90": 989,
        "sm_75": 65,
        "sm_89": 121,
        "sm_100": 2250,
        "sm_120": 209.5,
    }
    for compute, expected in tflops.items():
        assert gpus.FAMILIES[compute].matrix_gflops / 1e3 == pytest.approx(expected, rel=0.02)


def test_a_gpu_that_is_not_known_is_refused() -> None:
    for name in ("sm_60", "gtx", "90a"):
        with pytest.raises(OptionError, match=r"older than|not a CUDA architecture"):
            from_target(f"cuda -arch={name}")
    with pytest.raises(OptionError, match="holds code for one"):
        from_target("cuda -arch=sm_80,sm_90a")


def test_lanes_and_sizes() -> None:
    arch = FAMILIES["x86-64-v4"]
    assert [arch.vector_lanes(t) for t in ("float32", "int8", "float64", "bool")] == [16, 64, 8, 64]
    assert dtype_bits("bfloat16") == 16
    assert dtype_bits("float8_e4m3fn") == 8
    assert arch.fp32_gflops == pytest.approx(16 * 2 * 2 * 2.7)
    with pytest.raises(FrozenInstanceError):
        arch.cores = 2  # type: ignore[misc]
    assert dict(arch.describe())["caches"] == "32 KiB / 1 MiB / 32 MiB"


def test_vectors_have_the_full_width() -> None:
    import tvm
    from tvm import te

    x = te.placeholder((1024,), name="x")
    y = te.compute((1024,), lambda i: x[i] * x[i])
    arch = from_target("llvm -mcpu=x86-64-v4")
    function = te.create_prim_func([x, y]).with_attr("global_symbol", "main")
    schedule = tvm.s_tir.Schedule(function)
    (loop,) = schedule.get_loops(schedule.get_sblock("compute"))
    schedule.vectorize(schedule.split(loop, [None, arch.vector_lanes("float32")])[1])
    code = tvm.compile(schedule.mod, tvm.target.Target(to_target(arch))).mod.inspect_source("asm")
    assert "zmm" in code
