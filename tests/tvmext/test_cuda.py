"""Libraries for a GPU, made on any machine and refused where they cannot run."""

from __future__ import annotations

from pathlib import Path

import pytest

import tvmext
from tests.tvmext.networks import network
from tvmext.arch import cuda
from tvmext.artifact import read_metadata
from tvmext.build.cuda import Toolchain, Usage, usage
from tvmext.errors import ArtifactError, InternalError, OptionError

SOURCE = 'extern "C" __global__ void twice(float* x) {{ {body} }}'


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("cuda") / "model.so"
    tvmext.compile(network(), "cuda -arch=sm_90a").save(path)
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
    assert toolchain.compile(SOURCE.format(body="x[threadIdx.x] *= 2;")).startswith(b"\x7fELF")
    assert toolchain.usage["twice"].spill_stores == 0


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
