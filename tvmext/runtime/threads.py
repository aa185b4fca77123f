"""How many threads a run takes, and where they run.

TVM keeps a pool of workers for each thread that calls it, which never grows; left alone it takes
half of the cores of every x86 machine. A worker that sleeps often wakes on the core of its caller,
where the two share it for tens of milliseconds: a run twice as long. So workers are bound, each to
a core of its own, where a run takes all cores; with fewer threads the system finds free cores,
which another model may not have taken.
"""

from __future__ import annotations

import os
import threading
from functools import cache

import tvm

from tvmext.arch import physical_cores
from tvmext.errors import OptionError

ONE_CORE_PER_THREAD, ALL_SHARE_CORES = -2, -3
"""TVM's AffinityMode: kSpecifyOneCorePerThread and kSpecifyThreadShareAllCore."""

SPIN_COUNT = "10000"
"""Turns that a worker looks for the next kernel before it sleeps: 5 ms; TVM's own are 150 ms."""

_pool = threading.local()
_configure = tvm.get_global_func("runtime.config_threadpool")


def use_threads(count: int | None) -> None:
    """Let the next runs of the calling thread use `count` threads; None for `default_threads`."""
    count = count or default_threads()
    if getattr(_pool, "count", 0) == count:
        return
    os.environ.setdefault("TVM_THREAD_POOL_SPIN_COUNT", SPIN_COUNT)  # read by the first pool
    cores = physical_cores()
    wish = os.environ.get("TVM_BIND_THREADS", "")
    bound = 1 < count <= len(cores) and (wish == "1" or (not wish and count == len(cores)))
    # The pool is as large as the first list of cores; one core may be listed more than once.
    slots = [cores[i % len(cores)] for i in range(max(count, len(cores)))]
    before = os.sched_getaffinity(0)
    _configure(ONE_CORE_PER_THREAD if bound else ALL_SHARE_CORES, count, [str(i) for i in slots])
    os.sched_setaffinity(0, before)  # TVM binds the caller too
    _pool.count = count


@cache
def default_threads() -> int:
    """As many as TVM_NUM_THREADS says, else all physical cores. Raises OptionError."""
    value = os.environ.get("TVM_NUM_THREADS", "")
    if not value:
        return len(physical_cores())
    if not value.isdecimal() or int(value) < 1:
        raise OptionError(f"TVM_NUM_THREADS is {value!r}", hint="a number from 1 up")
    return int(value)
