"""What a machine can do, as a value: vector or matrix units, memory levels, cores.

`from_target` reads it from a TVM target and asks no hardware; `from_device` and `resolve` are the
only code that does. Schedule rules read these fields and never a device name; a figure may change
the speed of what they choose, never its results.
"""

from .common import dtype_bits
from .cpu import FAMILIES, CpuArch, from_device, physical_cores
from .cuda import CudaArch
from .target import Arch, flags, from_target, resolve, target_fields, to_target

__all__ = [
    "FAMILIES",
    "Arch",
    "CpuArch",
    "CudaArch",
    "dtype_bits",
    "flags",
    "from_device",
    "from_target",
    "physical_cores",
    "resolve",
    "target_fields",
    "to_target",
]
