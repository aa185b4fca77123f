"""An executable becomes a shared library, with the system's compiler or the one of a wheel."""

from __future__ import annotations

import errno
import os
import shlex
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import tvm

from tvmext.errors import InternalError, ToolchainError

from . import control_functions
from .elf import METADATA_SECTION
from .files import naming, scratch_folder
from .kernels import Executable
from .weight_function import source
from .weights import ALIGNMENT, memory, objects, write_weights

LARGE_BYTES = 1 << 30
"""Above this the weights go to ``.lrodata``: x86-64 code reaches only 2 GB around itself."""

_COMPILERS = ("c++", "g++", "clang++", "cc")


def link(executable: Executable, output: Path) -> None:
    """Write `executable` as a shared library to `output`.

    The weights pass through a file in `files.scratch_folder(output)`, not through memory. Raises
    ToolchainError without a compiler, ArtifactError where the files cannot be written.
    """
    compiler = find_compiler()
    folder = scratch_folder(output)
    try:
        with naming(output):
            folder.mkdir()
            function = folder / "weights.c"
            function.write_text(source(executable.on_gpu) + control_functions.SOURCE)
            executable.code.export_library(
                str(output),
                workspace_dir=str(folder),
                fpack_imports=lambda code, _system, prefix, into: _write_imports(
                    code, prefix, executable, Path(into)
                ),
                # without a kernel TVM adds a C file, and the options to compile it
                fcompile=lambda path, parts, options=(): _run_compiler(
                    compiler, path, [*parts, str(function), *options]
                ),
            )
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def find_compiler() -> list[str]:
    """The command of a C or C++ compiler that links: $CXX, the system's, or the ziglang wheel."""
    if chosen := shlex.split(os.environ.get("CXX", "")):
        if not shutil.which(chosen[0]):
            raise ToolchainError(
                f"the compiler in $CXX is not installed: {chosen[0]}",
                hint="unset CXX or set it to a compiler that exists",
            )
        return chosen
    for name in _COMPILERS:
        if found := shutil.which(name):
            return [found]
    if find_spec("ziglang"):
        return [sys.executable, "-m", "ziglang", "cc"]
    raise ToolchainError(
        "no compiler to link the library with",
        hint="install g++ or clang (apt install g++), or the ziglang wheel "
        "(pip install 'tvmext[toolchain]')",
    )


def _write_imports(
    code: tvm.runtime.Module, prefix: str, executable: Executable, folder: Path
) -> str:
    """Assembler source that brings in packed imports, weights and metadata; returns its path."""
    pack = tvm.get_global_func("runtime.ModulePackImportsToTensor")
    name = prefix + tvm.get_global_func("runtime.ModuleImportsBlobName")()
    blob, weights, metadata = (folder / f for f in ("imports.bin", "weights.bin", "metadata.json"))
    packed = pack(code)
    blob.write_bytes(memory(packed))
    offsets = write_weights(executable.weights, weights)
    metadata.write_text(executable.metadata, encoding="utf-8")
    large = weights.stat().st_size + blob.stat().st_size > LARGE_BYTES
    section = '.lrodata,"al",%progbits' if large else '.rodata,"a",%progbits'
    tensors = "\n".join(objects(executable.weights, offsets, ".Lweights"))
    assembler = folder / "imports.s"
    assembler.write_text(
        f"""\
    .section {section}
    .balign {ALIGNMENT}
.Lweights:
    .incbin "{weights}"
    .globl {name}
    .type {name}, %object
    .balign {ALIGNMENT}
{name}:
    .incbin "{blob}"
    .size {name}, . - {name}
    .section {METADATA_SECTION},"",%progbits
    .incbin "{metadata}"
{tensors}
    .section .note.GNU-stack,"",%progbits
"""
    )
    return str(assembler)


def _run_compiler(compiler: list[str], output: str, objects: list[str]) -> None:
    """Raises OSError if the compiler says that the disk is full, InternalError if it fails."""
    command = [*compiler, "-shared", "-fPIC", "-o", output, *objects, "-lm"]
    environment = {**os.environ, "LC_ALL": "C"}  # what it says is read below
    done = subprocess.run(
        command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, check=False
    )
    if done.returncode == 0:
        return
    said = (done.stderr + done.stdout).decode(errors="replace").strip()
    if os.strerror(errno.ENOSPC) in said:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    raise InternalError(
        f"linking failed with exit code {done.returncode}:\n{said[-2000:]}",
        hint=f"the command was: {shlex.join(command)}",
    )
