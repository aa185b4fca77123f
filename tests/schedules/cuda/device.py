"""Where kernels for a GPU run in tests: the emulator, or the GPU that the environment asks for.

``TVMEXT_TEST_GPU=1 pytest tests/schedules/cuda`` runs every schedule on the GPU of this machine
(python -m tools.gpu all does): compiled by NVRTC for what it is, launched by the driver.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import pytest

from tools.gpu.checks import ON_GPU
from tvmext.arch.cuda import CudaArch, from_device, from_name
from tvmext.build.cuda import Toolchain

from .emulator import Mutation, emulated

IS_GPU = bool(os.environ.get(ON_GPU))
ARCH: CudaArch = from_device() if IS_GPU else from_name("sm_80")


@contextmanager
def on_device(order: int = 0, mutation: Mutation | None = None) -> Iterator[None]:
    """CUDA modules that are built inside run in the emulator, or on the GPU.

    A GPU has an order of its own; it would notice a mutation some day, or hang.
    """
    if not IS_GPU:
        with emulated(order, mutation):
            yield
        return
    if mutation:
        pytest.skip("code is not mutated on a GPU")
    _compile_for_it()
    yield


@cache
def _compile_for_it() -> None:
    Toolchain(ARCH).register()
