"""What the operating system says about this machine and about disturbances on it."""

from __future__ import annotations

import os
import resource
from collections.abc import Callable
from pathlib import Path


def interruptions(threads: int) -> Callable[[], int]:
    """Counts, so far, ticks stolen from the machine plus involuntary context switches of a process.

    Switches only with one thread: threads that wait for each other and yield make them themselves.
    """

    def count() -> int:
        with Path("/proc/stat").open() as stat:
            stolen = int(stat.readline().split()[8])
        switches = resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw if threads == 1 else 0
        return stolen + switches

    return count


def cpu_name() -> str:
    """The processor's name and the number of its cores that this process may use."""
    name = "unknown CPU"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            name = line.partition(":")[2].strip()
            break
    return f"{name}, {len(os.sched_getaffinity(0))} cores"
