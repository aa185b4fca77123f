"""Intermediate code as text, for people who look inside: Relax, TIR, LLVM and assembly."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import tvm
from tvm import relax
from tvm.tirx import PrimFunc

from .files import write_atomically

SUFFIXES = {"relax": ".relax.py", "tir": ".tir.py", "ll": ".ll", "asm": ".s"}
"""Of the file that each format of `Options.dump_code` is written to."""


def dump(formats: Sequence[str], mod: tvm.IRModule, code: relax.VMExecutable, prefix: Path) -> None:
    """Write a file for each of `formats`: `prefix` with the suffix of the format.

    `mod` is the lowered and scheduled module, `code` what was generated from it. Raises
    ArtifactError where a file cannot be written.
    """
    for name in formats:
        path = prefix.with_name(prefix.name + SUFFIXES[name])
        with write_atomically(path) as file:
            file.write_text(_text(name, mod, code), encoding="utf-8")


def _text(name: str, mod: tvm.IRModule, code: relax.VMExecutable) -> str:
    if name in ("ll", "asm"):
        return "\n".join(module.inspect_source(name) for module in _llvm(code.mod))
    kept = {
        gvar: function
        for gvar, function in mod.functions.items()
        if isinstance(function, PrimFunc) == (name == "tir")
    }
    return str(tvm.IRModule(kept).script(show_meta=False))


def _llvm(module: tvm.runtime.Module) -> Iterator[tvm.runtime.Module]:
    """The LLVM modules below `module`."""
    if module.kind == "llvm":
        yield module
    for inner in module.imports:
        yield from _llvm(inner)
