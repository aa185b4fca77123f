"""CUDA's libraries on this machine: the driver asked, the runtime found and given to TVM."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

TOOLKIT = "cu13"
"""The folder of NVIDIA's wheels that belong to the CUDA version of TVM's wheel."""


class Driver:
    """The first GPU, through the driver of this machine (CUDA Driver API, CUdevice_attribute).

    Raises OSError where there is no driver or no GPU.
    """

    _NUMBERS: Mapping[str, int] = {
        "clock kHz": 13,
        "multiprocessors": 16,
        "memory clock kHz": 36,
        "memory bus bits": 37,
        "L2 bytes": 38,
        "threads per multiprocessor": 39,
        "capability major": 75,
        "capability minor": 76,
        "shared bytes per multiprocessor": 81,
        "registers per multiprocessor": 82,
        "shared bytes per block, opted in": 97,
    }

    def __init__(self) -> None:
        try:
            self.library = ctypes.CDLL("libcuda.so.1")
        except OSError:
            raise OSError("this machine has no NVIDIA driver") from None
        self.device = ctypes.c_int()
        if self.library.cuInit(0) or self.library.cuDeviceGet(ctypes.byref(self.device), 0):
            raise OSError("the NVIDIA driver finds no GPU")
        text = ctypes.create_string_buffer(256)
        self.library.cuDeviceGetName(text, len(text), self.device)
        self.name = text.value.decode(errors="replace")

    def attribute(self, name: str) -> int:
        """A number that the driver knows about the GPU; 0 where it does not."""
        value = ctypes.c_int()
        number = self._NUMBERS[name]
        self.library.cuDeviceGetAttribute(ctypes.byref(value), number, self.device)
        return value.value


def toolkit() -> Path | None:
    """The folder of NVIDIA's wheels (include, lib); None if they are not installed."""
    spec = find_spec("nvidia")
    for place in (spec.submodule_search_locations or ()) if spec else ():
        folder = Path(place) / TOOLKIT
        if (folder / "lib" / "libcudart.so.13").exists():
            return folder
    return None


def headers() -> Path | None:
    """The folder of CUDA's headers: of the wheels, else of a toolkit that is installed."""
    wheels = toolkit()
    places = [wheels] if wheels else []
    places += [Path(os.environ[name]) for name in ("CUDA_HOME", "CUDA_PATH") if name in os.environ]
    for place in (*places, Path("/usr/local/cuda")):
        if (place / "include" / "cuda_fp16.h").exists():
            return place / "include"
    return None


def load_runtime() -> None:
    """Load TVM's CUDA part and CUDA's runtime library, which it needs; the driver must be there.

    TVM does this by itself only where the libraries lie in the linker's path when it is imported.
    Raises OSError where a library is missing.
    """
    import tvm

    if tvm.get_global_func("ffi.Module.create.cuda", allow_missing=True) is not None:
        return
    wheels = toolkit()
    runtime = "libcudart.so.13" if wheels is None else str(wheels / "lib" / "libcudart.so.13")
    own = Path(tvm.__file__).parent / "lib" / "libtvm_runtime_cuda.so"
    for library in ("libcuda.so.1", runtime, str(own)):
        ctypes.CDLL(library, ctypes.RTLD_GLOBAL)
