"""What the operating system says about this machine and about disturbances on it."""

from __future__ import annotations

import os
import resource
from pathlib import Path


def interruptions() -> int:
    """Involuntary context switches of this process plus ticks stolen from the machine, so far."""
    with Path("/proc/stat").open() as stat:
        stolen = int(stat.readline().split()[8])
    return resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw + stolen


def cpu_name() -> str:
    """The processor's name and the number of its cores that this process may use."""
    name = "unknown CPU"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            name = line.partition(":")[2].strip()
            break
    return f"{name}, {len(os.sched_getaffinity(0))} cores"
