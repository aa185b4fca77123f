"""Many jobs in few processes: forked workers take jobs one by one; a crash is a result."""

from __future__ import annotations

import multiprocessing
import os
import resource
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Generic, TypeVar

WAITING = 20

Job = TypeVar("Job")
Result = TypeVar("Result")


@dataclass(frozen=True)
class End:
    """How a worker came to its end while it had a job: `status` is crash or timeout."""

    status: str
    exit_code: int
    seconds: float


@dataclass(frozen=True)
class Limits:
    """`seconds` of computing for one job; `memory`, bytes of address space, for a worker, which
    after `jobs` jobs is replaced by a new one."""

    seconds: float
    memory: int = 8 << 30
    jobs: int = 1 << 62


@dataclass(frozen=True)
class Work(Generic[Job, Result]):
    """`check` makes a result of a job, in a worker; `ended` of a job that ended its worker; `begin`
    is called once in each worker."""

    check: Callable[[Job], Result]
    ended: Callable[[Job, End], Result]
    begin: Callable[[], None] = lambda: None


def run(
    jobs: Sequence[Job],
    work: Work[Job, Result],
    limits: Limits,
    heard: Callable[[Result], None],
    workers: int = 1,
) -> None:
    """Do every job; `heard` gets the results in the order in which they come."""
    pending = list(range(len(jobs)))[::-1]
    running: dict[Connection, _Worker[Job, Result]] = {}
    while pending or running:
        while pending and len(running) < workers:
            worker = _Worker(jobs, work, limits)
            worker.give(pending.pop())
            running[worker.pipe] = worker
        for pipe in wait(list(running), timeout=0.5) or []:
            worker = running[pipe]  # type: ignore[index]
            try:
                heard(worker.pipe.recv())
            except EOFError:
                heard(worker.ended("crash"))
                running.pop(worker.pipe)
                continue
            if pending and worker.given < limits.jobs:
                worker.give(pending.pop())
            else:
                running.pop(worker.pipe).stop()
        for worker in list(running.values()):
            if worker.seconds > limits.seconds:
                heard(worker.ended("timeout"))
                running.pop(worker.pipe)


class _Worker(Generic[Job, Result]):
    """A forked process that has the jobs in memory and is told their numbers."""

    def __init__(self, jobs: Sequence[Job], work: Work[Job, Result], limits: Limits) -> None:
        context = multiprocessing.get_context("fork")
        self.pipe, theirs = context.Pipe()
        self.given = 0
        self._jobs = jobs
        self._work = work
        arguments = (jobs, work, limits, theirs)
        self._process = context.Process(target=_serve, args=arguments, daemon=True)
        self._process.start()
        theirs.close()

    def give(self, number: int) -> None:
        self._number, self._start = number, self._cpu()
        self._begun = time.monotonic()
        self.given += 1
        self.pipe.send(number)

    @property
    def seconds(self) -> float:
        """Of computing: other processes may keep this one waiting. A sleep counts a twentieth."""
        return max(self._cpu() - self._start, (time.monotonic() - self._begun) / WAITING)

    def _cpu(self) -> float:
        fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def ended(self, status: str) -> Result:
        seconds = round(self.seconds, 3)
        self.stop()
        code = self._process.exitcode or 0
        return self._work.ended(self._jobs[self._number], End(status, code, seconds))

    def stop(self) -> None:
        self._process.kill()
        self._process.join()
        self.pipe.close()


def _serve(jobs: Sequence[Job], work: Work[Job, Result], limits: Limits, pipe: Connection) -> None:
    os.environ["TVM_NUM_THREADS"] = "1"
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (limits.memory, limits.memory))
    quiet = os.open(os.devnull, os.O_WRONLY)
    os.dup2(quiet, 1)
    os.dup2(quiet, 2)
    work.begin()
    while True:
        pipe.send(work.check(jobs[pipe.recv()]))
