"""Candidates of kernels as one library: linking costs little that way."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import tvm
from tvm.tirx import PrimFunc

from tvmext.arch import Arch, CudaArch, to_target
from tvmext.build.cuda import toolchain_for
from tvmext.build.kernels import build_kernels
from tvmext.build.link import find_compiler
from tvmext.options import Options


def write_library(
    functions: Mapping[str, PrimFunc], arch: Arch, options: Options, path: Path
) -> None:
    """Compile scheduled functions, by their symbols, into a shared library."""
    target = tvm.target.Target(to_target(arch))
    if isinstance(arch, CudaArch) and (toolchain := toolchain_for(arch, options)):
        toolchain.register()
    library = build_kernels(functions, target)
    unfinished = path.with_name(f".{path.name}")
    library.export_library(str(unfinished), cc=find_compiler()[0])
    os.replace(unfinished, path)
