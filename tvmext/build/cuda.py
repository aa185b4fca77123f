"""CUDA source becomes machine code with NVRTC, on machines without GPU, driver or toolkit.

TVM's CUDA part links to the driver; without one TVM does not load it and quietly embeds *source*,
which fails on the machine that loads it. A stand-in takes the driver's place while compiling: every
function of it says that there is no device.

    pip install 'tvmext[cuda]'      NVRTC and the headers, from PyPI
"""

from __future__ import annotations

import ctypes
import hashlib
import json
import os
import re
import subprocess
import tempfile
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tvmext.arch import Arch, CudaArch
from tvmext.arch.cuda_driver import headers, load_runtime
from tvmext.errors import InternalError, ToolchainError
from tvmext.options import Options

from .cache import Cache, cache_for
from .cuda_source import HEADERS, PREAMBLE, kernels
from .link import find_compiler

_REVISION = 4  # of how kernels are compiled here: entries of the cache hold what it makes
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
    in bytes per block, without what is asked for at launch. `code` is the size of its cubin.
    """

    registers: int
    stack: int
    spill_stores: int
    spill_loads: int
    shared: int
    code: int = 0


class Toolchain:
    """NVRTC, set up for one architecture; `usage` holds {kernel: what it takes}.

    Every kernel is compiled alone, several at a time, unless the cache `kept` has it, and is a module
    of its own in the library. `compiled` counts those that the cache had not.
    """

    def __init__(
        self, arch: CudaArch, *, fast_math: bool = False, kept: Cache | None = None
    ) -> None:
        self.arch = arch
        self.fast_math = fast_math
        self.cache = kept or Cache(None)
        self.usage: dict[str, Usage] = {}
        self.compiled = 0
        self._headers = _headers()
        _load_driver()
        load_runtime()

    def register(self) -> None:
        """Have TVM compile with this; the code generator calls it once per module."""
        import tvm_ffi

        create = "ffi.Module.create.cuda"
        known = tvm_ffi.get_global_func(create)

        def module(code: Any, form: str, functions: Mapping[str, Any], sources: Any) -> Any:
            if form != "cuda":
                return known(code, form, functions, sources)
            cubins = self.compile(bytes(code).decode())
            first, *others = (
                known(cubin, "cubin", {name: functions[name]}, {}) for name, cubin in cubins.items()
            )
            for other in others:
                first.import_module(other)
            return first

        tvm_ffi.register_global_func(create, module, override=True)

    def compile(self, source: str) -> dict[str, bytes]:
        """{kernel: its cubin} of a CUDA C++ source as TVM writes it.

        Raises InternalError with NVRTC's log.
        """
        units = kernels(source)
        if not units:
            raise InternalError(f"there is no kernel in the generated code:\n{source[-500:]}")
        # The longest first, so that no core is left alone with it.
        names = sorted(units, key=lambda name: -len(units[name]))
        with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
            made = dict(zip(names, pool.map(lambda name: self._cubin(name, units[name]), names)))
        self.cache.trim()
        for name, (_, used) in made.items():
            self.usage[name] = used
        return {name: made[name][0] for name in units}

    def _cubin(self, name: str, source: str) -> tuple[bytes, Usage]:
        """A kernel's machine code and what it takes, from the cache or from NVRTC."""
        options = self._options()
        made_from = (_REVISION, name, source, PREAMBLE, HEADERS, options, _versions())
        key = hashlib.sha256(repr(made_from).encode()).hexdigest()
        if entry := self.cache.get(key):
            head, _, cubin = entry.partition(b"\n")
            return cubin, Usage(**json.loads(head))
        cubin, log = self._compiled(source, options)
        used = usage(log)[name]
        # ptxas would rather spill than let fewer blocks reside: say that one is enough. (It then
        # takes no more registers than it has use for, and no notice of --maxrregcount.) Where a
        # thread has all there are, it may still spill less if it is as free with them as it can be.
        alone = _BOUNDS.sub(r"__launch_bounds__(\1, 1)", source)
        for more in ([], ["--ptxas-options=--register-usage-level=10"]):
            if not used.spill_stores:
                break
            other, log = self._compiled(alone, [*options, *more])
            if usage(log)[name].spill_stores < used.spill_stores:
                cubin, used = other, usage(log)[name]
        used = replace(used, code=len(cubin))
        self.compiled += 1
        self.cache.put(key, json.dumps(asdict(used)).encode() + b"\n" + cubin)
        return cubin, used

    def _compiled(self, source: str, options: list[str]) -> tuple[bytes, str]:
        """Machine code and the report of ptxas."""
        from cuda.bindings import nvrtc

        text = PREAMBLE + source.replace("#include <cuda.h>\n", "")
        names, texts = [n.encode() for n in HEADERS], [t.encode() for t in HEADERS.values()]
        program = _checked(
            nvrtc.nvrtcCreateProgram(text.encode(), b"kernels.cu", len(names), texts, names)
        )
        given = [*options, *self._places()]
        (status,) = nvrtc.nvrtcCompileProgram(program, len(given), [o.encode() for o in given])
        log = _text(nvrtc.nvrtcGetProgramLogSize, nvrtc.nvrtcGetProgramLog, program).decode()
        if status != nvrtc.nvrtcResult.NVRTC_SUCCESS:
            raise InternalError(f"NVRTC refused the generated code for {self.arch.compute}:\n{log}")
        cubin = _text(nvrtc.nvrtcGetCUBINSize, nvrtc.nvrtcGetCUBIN, program)
        nvrtc.nvrtcDestroyProgram(program)
        return cubin, log

    def report(self) -> dict[str, dict[str, int]]:
        """`usage` as plain data."""
        return {name: asdict(used) for name, used in self.usage.items()}

    def _options(self) -> list[str]:
        options = [
            f"--gpu-architecture={self.arch.compute}",
            "--std=c++17",
            "-default-device",
            "--device-int128",
            "-D__NV_SILENCE_DEPRECATION_BEGIN=",
            "-D__NV_SILENCE_DEPRECATION_END=",
            "--disable-warnings",
            "--ptxas-options=-v",
        ]
        return [*options, "--use_fast_math"] if self.fast_math else options

    def _places(self) -> list[str]:
        return [f"-I{self._headers}", f"-I{self._headers / 'cccl'}"]


def toolchain_for(arch: Arch, options: Options, folder: str | None = None) -> Toolchain | None:
    """What compiles device code for `arch`; None for a CPU, which LLVM is enough for.

    `folder` is where compiled kernels are kept, as in `cache.cache_for`.
    """
    if not isinstance(arch, CudaArch):
        return None
    return Toolchain(arch, fast_math=options.fast_math, kept=cache_for(folder))


_BOUNDS = re.compile(r"__launch_bounds__\((\d+)\)")
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


def _headers() -> Path:
    """The folder of CUDA's headers; the libraries are found by those who load them."""
    folder = headers()
    if folder is None or not _installed("cuda.bindings"):
        raise ToolchainError(
            "compiling for CUDA needs NVRTC and its headers, which are not installed",
            hint="pip install 'tvmext[cuda]'",
        )
    return folder


@cache
def _versions() -> dict[str, str]:
    """Of what machine code depends on beside its source: the compiler and CUDA's own headers."""
    from cuda.bindings import nvrtc

    wheels = ("nvidia-cuda-nvrtc", "nvidia-cuda-runtime", "nvidia-cuda-cccl")
    found = {"nvrtc": str(nvrtc.nvrtcVersion()), "headers": str(_headers())}
    for wheel in wheels:
        with suppress(PackageNotFoundError):  # a toolkit beside the wheels
            found[wheel] = version(wheel)
    return found


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
