"""Libraries for a GPU, made on any machine and refused where they cannot run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tvm

import tvmext
from tests.schedules.cuda.emulator import emulated
from tests.tvmext.models import build, spec
from tests.tvmext.networks import network
from tvmext.arch import cuda, cuda_driver
from tvmext.artifact import read_metadata
from tvmext.build.cache import Cache
from tvmext.build.cuda import Toolchain, Usage, usage
from tvmext.build.cuda_source import kernels
from tvmext.build.link import link
from tvmext.errors import ArtifactError, InternalError, OptionError

SOURCE = 'extern "C" __global__ void twice(float* x) {{\n{body}\n}}\n'


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("cuda") / "model.so"
    cache = path.with_name("cache")
    tvmext.compile(network(), "cuda -arch=sm_90a", cache=str(cache)).save(path)
    assert any(cache.glob("*/*"))
    return path


def test_a_library_holds_machine_code_and_what_it_takes(library: Path) -> None:
    metadata = read_metadata(library)
    assert metadata.target["arch"] == "sm_90a"
    assert metadata.usage
    assert all(0 < used["registers"] <= 255 for used in metadata.usage.values())
    assert not any(used["spill_stores"] for used in metadata.usage.values())
    assert b"__global__" not in library.read_bytes()


def test_without_a_driver_it_says_what_is_missing(
    library: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none() -> cuda.CudaArch:
        raise OptionError("this machine has no NVIDIA driver")

    monkeypatch.setattr("tvmext.artifact.gpu_of_this_machine", none)
    with pytest.raises(ArtifactError, match="compiled for sm_90a, and this machine has no NVIDIA"):
        tvmext.load(library)


@pytest.mark.parametrize("here", ["sm_80", "sm_100a"])
def test_code_of_another_generation_is_refused(
    library: Path, here: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tvmext.artifact.gpu_of_this_machine", lambda: cuda.from_name(here))
    with pytest.raises(ArtifactError, match=f"the GPU here .* is {here}"):
        tvmext.load(library)


def test_a_library_for_a_gpu_does_not_run_on_the_cpu(library: Path) -> None:
    with pytest.raises(OptionError, match="compiled for cuda, not for cpu"):
        tvmext.load(library, device="cpu")


def test_refused_code_is_a_defect_of_ours_with_the_log() -> None:
    toolchain = Toolchain(cuda.from_name("sm_80"))
    with pytest.raises(InternalError, match=r"(?s)NVRTC refused.*nonsense"):
        toolchain.compile(SOURCE.format(body="nonsense"))
    cubins = toolchain.compile(SOURCE.format(body="x[threadIdx.x] *= 2;"))
    assert cubins["twice"].startswith(b"\x7fELF")
    assert toolchain.usage["twice"].spill_stores == 0


TWO = """\
#include <cuda/std/type_traits>
template <class T> constexpr float factor = cuda::std::is_signed<T>::value ? 2 : 3;
extern "C" __global__ void __launch_bounds__(32) twice(float* x);
extern "C" __global__ void thrice(float* x, int64_t n);
extern "C" __global__ void __launch_bounds__(32) twice(float* x) {
  x[threadIdx.x] *= factor<int>;
}

extern "C" __global__ void thrice(float* x, int64_t n) {
  x[n] *= factor<unsigned int>;
}
"""


def test_every_kernel_is_compiled_once_and_found_again(tmp_path: Path) -> None:
    def toolchain(arch: str = "sm_80", fast_math: bool = False) -> Toolchain:
        kept = Cache(tmp_path)
        return Toolchain(cuda.from_name(arch), fast_math=fast_math, kept=kept)

    first, again = toolchain(), toolchain()
    made = first.compile(TWO)
    assert list(made) == ["twice", "thrice"] and first.compiled == 2
    assert again.compile(TWO) == made and again.compiled == 0
    assert again.usage == first.usage
    changed = TWO.replace("x[n] *=", "x[n] +=")
    assert again.compile(changed)["twice"] == made["twice"] and again.compiled == 1
    for other in (toolchain("sm_90a"), toolchain(fast_math=True)):
        other.compile(TWO)
        assert other.compiled == 2


@pytest.mark.parametrize("threads", [128, 1024])
def test_a_kernel_that_spills_gets_the_registers_that_a_block_alone_may_have(threads: int) -> None:
    """Two hundred values alive at once: 128 threads can hold them, 1024 cannot and must not try."""
    body = "float v[200];\n#pragma unroll\nfor (int i = 0; i < 200; ++i) v[i] = x[i * 999];\n"
    body += "__syncthreads();\n#pragma unroll\nfor (int i = 0; i < 200; ++i) x[i * 777] = v[i];"
    bounds = f"void __launch_bounds__({threads}) twice"
    toolchain = Toolchain(cuda.from_name("sm_80"))
    toolchain.compile(SOURCE.format(body=body).replace("void twice", bounds))
    used = toolchain.usage["twice"]
    assert used.registers * threads <= toolchain.arch.registers_per_sm
    assert (used.spill_stores > 0) == (threads == 1024)


def test_helpers_between_kernels_belong_to_all() -> None:
    helper = "static __device__ float own(float x) { return x; }\n"
    assert list(kernels(TWO.replace("void thrice", "void __cluster_dims__(2, 1, 1) thrice"))) == [
        "twice",
        "thrice",
    ]
    first, second = kernels(
        TWO.replace(
            '\nextern "C" __global__ void thrice(float* x, int64_t n) {',
            helper + 'extern "C" __global__ void thrice(float* x, int64_t n) {',
        )
    ).values()
    assert first == second and helper in first


def test_weights_of_a_gpu_are_copied_once_and_can_be_released(tmp_path: Path) -> None:
    weight = np.random.default_rng(0).standard_normal((64, 32), dtype=np.float32)
    shape = spec("x", "float32", 64, 32)
    constant = tvm.relax.const(tvm.runtime.tensor(weight))
    made = build([shape], [shape], lambda x: tvm.relax.op.add(x, constant))
    link(replace(made, on_gpu=True), tmp_path / "m.so")
    with emulated():  # the memory of the GPU is that of the CPU
        library = tvm.runtime.load_module(str(tmp_path / "m.so"))
        get = library.get_function("tvmext_weight", True)
        first, second = get(0), get(0)
        assert first.device == tvm.cuda() and first.data_ptr() == second.data_ptr()
        np.testing.assert_array_equal(first.numpy(), weight)
        library.get_function("tvmext_release_weights", True)()
        assert get(0).data_ptr() != first.data_ptr()
        np.testing.assert_array_equal(first.numpy(), weight)


def test_headers_of_an_installed_toolkit_will_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tvmext.arch.cuda_driver.toolkit", lambda: None)
    monkeypatch.setenv("CUDA_HOME", str(tmp_path))
    assert cuda_driver.headers() != tmp_path / "include"
    (tmp_path / "include").mkdir()
    (tmp_path / "include" / "cuda_fp16.h").write_text("")
    assert cuda_driver.headers() == tmp_path / "include"


def test_the_report_of_ptxas() -> None:
    log = """\
ptxas info    : Compiling entry function 'matmul_kernel' for 'sm_90a'
ptxas info    : Function properties for matmul_kernel
    16 bytes stack frame, 12 bytes spill stores, 8 bytes spill loads
ptxas info    : Used 128 registers, used 1 barriers, 4400 bytes smem
ptxas info    : Compiling entry function 'add_kernel' for 'sm_90a'
ptxas info    : Used 14 registers
"""
    assert usage(log) == {
        "matmul_kernel": Usage(128, 16, 12, 8, 4400),
        "add_kernel": Usage(14, 0, 0, 0, 0),
    }
