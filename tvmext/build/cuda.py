"""CUDA source becomes machine code with NVRTC, on machines without GPU, driver or toolkit.

TVM's CUDA part links to the driver; without one TVM does not load it and quietly embeds *source*,
which fails on the machine that loads it. A stand-in takes the driver's place while compiling: every
function of it says that there is no device.

    pip install 'tvmext[cuda]'      NVRTC and the headers, from PyPI
"""

from __future__ import annotations

import ctypes
import re
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tvmext.arch import Arch, CudaArch
from tvmext.arch.cuda_driver import load_runtime, toolkit
from tvmext.errors import InternalError, ToolchainError
from tvmext.options import Options

from .link import find_compiler

_NO_DEVICE = 100  # CUDA_ERROR_NO_DEVICE
_STUB = """\
extern "C" {
#define STUB(name) int name() { return %d; }
STUB(cuInit) STUB(cuDeviceGetName) STUB(cuFuncSetAttribute) STUB(cuLaunchKernelEx)
STUB(cuModuleGetFunction) STUB(cuModuleLoadData) STUB(cuModuleUnload) STUB(cuTensorMapEncodeTiled)
int cuGetErrorName(int, const char **p) { *p = "CUDA_ERROR_NO_DEVICE"; return 0; }
int cuGetErrorString(int, const char **p) { *p = "there is no CUDA driver here"; return 0; }
}
""" % _NO_DEVICE


@dataclass(frozen=True)
class Usage:
    """What one kernel takes of a multiprocessor, as ptxas reports it.

    `registers` per thread; `stack`, `spill_stores` and `spill_loads` in bytes per thread; `shared`
    in bytes per block, without what is asked for at launch.
    """

    registers: int
    stack: int
    spill_stores: int
    spill_loads: int
    shared: int


class Toolchain:
    """NVRTC, set up for one architecture; `usage` holds {kernel: what it takes}."""

    def __init__(self, arch: CudaArch, *, fast_math: bool = False) -> None:
        self.arch = arch
        self.fast_math = fast_math
        self.usage: dict[str, Usage] = {}
        self._folder = _toolkit()
        _load_driver()
        load_runtime()

    def register(self) -> None:
        """Have TVM compile with this; the code generator calls it once per module."""
        import tvm_ffi

        tvm_ffi.register_global_func("tvm_callback_cuda_compile", self.compile, override=True)

    def compile(self, source: str) -> bytes:
        """The cubin of a CUDA C++ source as TVM writes it. Raises InternalError with NVRTC's log."""
        from cuda.bindings import nvrtc

        text = _PREAMBLE + source.replace("#include <cuda.h>\n", "")
        program = _checked(nvrtc.nvrtcCreateProgram(text.encode(), b"kernels.cu", 0, None, None))
        options = self._options()
        (status,) = nvrtc.nvrtcCompileProgram(program, len(options), options)
        log = _text(nvrtc.nvrtcGetProgramLogSize, nvrtc.nvrtcGetProgramLog, program).decode()
        if status != nvrtc.nvrtcResult.NVRTC_SUCCESS:
            raise InternalError(f"NVRTC refused the generated code for {self.arch.compute}:\n{log}")
        self.usage |= usage(log)
        return _text(nvrtc.nvrtcGetCUBINSize, nvrtc.nvrtcGetCUBIN, program)

    def report(self) -> dict[str, dict[str, int]]:
        """`usage` as plain data."""
        return {name: asdict(used) for name, used in self.usage.items()}

    def _options(self) -> list[bytes]:
        include = self._folder / "include"
        options = [
            f"--gpu-architecture={self.arch.compute}",
            "--std=c++17",
            "-default-device",
            "--device-int128",
            f"-I{include}",
            f"-I{include / 'cccl'}",
            "-D__NV_SILENCE_DEPRECATION_BEGIN=",
            "-D__NV_SILENCE_DEPRECATION_END=",
            "--ptxas-options=-v",
        ]
        if self.fast_math:
            options.append("--use_fast_math")
        return [option.encode() for option in options]


def toolchain_for(arch: Arch, options: Options) -> Toolchain | None:
    """What compiles device code for `arch`; None for a CPU, which LLVM is enough for."""
    if not isinstance(arch, CudaArch):
        return None
    return Toolchain(arch, fast_math=options.fast_math)


# NVRTC has no host headers: what TVM's code takes from <stdint.h> and <math.h>.
_PREAMBLE = """\
#include <cuda/std/cstdint>
#include <cuda/std/limits>
using cuda::std::int8_t; using cuda::std::int16_t; using cuda::std::int32_t;
using cuda::std::int64_t; using cuda::std::uint8_t; using cuda::std::uint16_t;
using cuda::std::uint32_t; using cuda::std::uint64_t;
#define INFINITY (::cuda::std::numeric_limits<float>::infinity())
struct alignas(64) CUtensorMap_st { unsigned long long opaque[16]; };
typedef struct CUtensorMap_st CUtensorMap;
"""

_FUNCTION = re.compile(r"Compiling entry function '(\w+)'")
_FRAME = re.compile(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads")
_USED = re.compile(r"Used (\d+) registers(?:.*?(\d+) bytes smem)?")


def usage(log: str) -> dict[str, Usage]:
    """{kernel: what it takes} from the verbose output of ptxas."""
    found: dict[str, Usage] = {}
    for part in re.split(r"(?=Compiling entry function)", log):
        name, frame, used = (e.search(part) for e in (_FUNCTION, _FRAME, _USED))
        if name and used:
            stack, stores, loads = map(int, frame.groups()) if frame else (0, 0, 0)
            found[name[1]] = Usage(int(used[1]), stack, stores, loads, int(used[2] or 0))
    return found


def _toolkit() -> Path:
    """The folder of the wheels: include, include/cccl and lib."""
    folder = toolkit()
    headers = folder is not None and (folder / "include" / "cccl").exists()
    if folder is None or not headers or not _installed("cuda.bindings"):
        raise ToolchainError(
            "compiling for CUDA needs NVRTC and its headers, which are not installed",
            hint="pip install 'tvmext[cuda]'",
        )
    return folder


def _installed(name: str) -> bool:
    try:
        return find_spec(name) is not None
    except ModuleNotFoundError:
        return False


def _load_driver() -> None:
    """Load the driver of this machine, or a stub of it, so that TVM finds its symbols."""
    try:
        ctypes.CDLL("libcuda.so.1", ctypes.RTLD_GLOBAL)
        return
    except OSError:
        pass
    with tempfile.TemporaryDirectory(prefix="tvmext-cuda-") as folder:
        library = Path(folder) / "libcuda.so.1"
        command = [*find_compiler(), "-shared", "-fPIC", "-x", "c++", "-", "-o", str(library)]
        # TVM's library asks for the driver by this name.
        command.append("-Wl,-soname,libcuda.so.1")
        done = subprocess.run(command, input=_STUB.encode(), capture_output=True, check=False)
        if done.returncode:
            raise ToolchainError(
                f"the compiler could not build a stand-in for the CUDA driver: "
                f"{done.stderr.decode(errors='replace').strip()[-500:]}",
                hint="install g++ (apt install g++)",
            )
        ctypes.CDLL(str(library), ctypes.RTLD_GLOBAL)


def _checked(result: tuple[Any, Any]) -> Any:
    status, value = result
    if int(status):
        raise InternalError(f"NVRTC failed with {status!r}")
    return value


def _text(size: Callable[..., Any], read: Callable[..., Any], program: Any) -> bytes:
    """What NVRTC returns into a buffer of the caller's."""
    buffer = b" " * _checked(size(program))
    (status,) = read(program, buffer)
    if int(status):
        raise InternalError(f"NVRTC failed with {status!r}")
    return buffer
