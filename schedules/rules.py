"""Which rules schedule for which kind of machine."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tvmext.arch import Arch, CudaArch
from tvmext.options import WINOGRAD, Options

if TYPE_CHECKING:
    from .rule import Rule


def rules_for(arch: Arch, options: Options) -> tuple[Rule, ...]:
    """The rules for `arch`, in the order in which they are asked; the last one takes everything."""
    if isinstance(arch, CudaArch):
        from . import cuda

        return cuda.rules(arch, tf32=options.tf32)
    from . import cpu

    return cpu.rules(WINOGRAD[options.winograd])
