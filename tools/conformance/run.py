"""Many tests in few processes: forked workers take tests one by one; a crash is a result."""

from __future__ import annotations

import multiprocessing
import os
import resource
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import numpy as np

from tvmext.errors import TvmextError, UnsupportedError
from tvmext.onnx_backend import InProcessBackend

from . import cases

MEMORY_BYTES = 8 << 30
REASON_CHARS = 300
WAITING = 20


@dataclass(frozen=True)
class Result:
    """`status` is passed, refused (unsupported), wrong (values differ), failed, crash or timeout.

    `bound` names inputs whose values the model was compiled for.
    """

    suite: str
    name: str
    operator: str
    kind: str
    opset: int
    status: str
    reason: str
    bound: tuple[str, ...]
    seconds: float


def check(suite: str, case: Any) -> Result:
    """Run one test in this process."""
    from onnx.backend.test.runner import Runner

    start = time.process_time()
    model = cases.model_of(case)
    status, reason, bound = "passed", "", ()
    try:
        rep = InProcessBackend.prepare(model)
        bound = rep.bound
        for inputs, expected in cases.data_of(case, model):
            found = rep.run(inputs)
            Runner.assert_similar_outputs(_flat(expected), _flat(found), case.rtol, case.atol)
    except UnsupportedError as error:
        status, reason = "refused", "; ".join(map(str, error.ops))
    except AssertionError as error:
        status, reason = "wrong", _one_line(error)
    except Exception as error:
        status, reason = "failed", f"{type(error).__name__}: {_one_line(error)}"
        if isinstance(error, TvmextError):
            status = "refused" if error.exit_code in (2, 3) else "failed"
    opset = max((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), default=0)
    seconds = round(time.process_time() - start, 3)
    operator = cases.operator_of(model, case.name)
    return Result(
        suite, case.name, operator, cases.kind_of(model), opset, status, reason, bound, seconds
    )


def _flat(values: Sequence[Any]) -> list[Any]:
    """Each list as its length and its elements: ONNX's comparison overlooks the length, and fails
    for elements without dims."""
    return [
        array
        for value in values
        for array in ([np.array(len(value)), *value] if isinstance(value, list) else [value])
    ]


def _one_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines()]
    return " ".join(line for line in lines if line)[:REASON_CHARS]


def run(
    tests: Sequence[tuple[str, Any]], workers: int, limit: float, heard: Callable[[Result], None]
) -> None:
    """`check` every (suite, case), each for at most `limit` seconds; `heard` gets the results."""
    pending = list(enumerate(tests))[::-1]
    running: dict[Connection, _Worker] = {}
    while pending or running:
        while pending and len(running) < workers:
            worker = _Worker(tests)
            worker.give(pending.pop()[0])
            running[worker.pipe] = worker
        for pipe in wait(list(running), timeout=0.5) or []:
            worker = running[pipe]  # type: ignore[index]
            try:
                heard(pipe.recv())  # type: ignore[union-attr]
            except EOFError:
                heard(worker.ended("crash"))
                running.pop(pipe)  # type: ignore[arg-type]
                continue
            if pending:
                worker.give(pending.pop()[0])
            else:
                running.pop(pipe).stop()  # type: ignore[arg-type]
        for worker in list(running.values()):
            if worker.seconds > limit:
                heard(worker.ended("timeout"))
                running.pop(worker.pipe)


class _Worker:
    """A forked process that has the tests in memory and is told their numbers."""

    def __init__(self, tests: Sequence[tuple[str, Any]]) -> None:
        context = multiprocessing.get_context("fork")
        self.pipe, theirs = context.Pipe()
        self._tests = tests
        self._process = context.Process(target=_work, args=(tests, theirs), daemon=True)
        self._process.start()
        theirs.close()

    def give(self, number: int) -> None:
        self._number, self._start = number, self._cpu()
        self._begun = time.monotonic()
        self.pipe.send(number)

    @property
    def seconds(self) -> float:
        """Of computing: other processes may keep this one waiting. A sleep counts a twentieth."""
        return max(self._cpu() - self._start, (time.monotonic() - self._begun) / WAITING)

    def _cpu(self) -> float:
        fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def ended(self, status: str) -> Result:
        suite, case = self._tests[self._number]
        seconds = round(self.seconds, 3)
        self.stop()
        model = cases.model_of(case)
        operator, kind = cases.operator_of(model, case.name), cases.kind_of(model)
        code = self._process.exitcode
        return Result(suite, case.name, operator, kind, 0, status, f"exit {code}", (), seconds)

    def stop(self) -> None:
        self._process.kill()
        self._process.join()
        self.pipe.close()


def _work(tests: Sequence[tuple[str, Any]], pipe: Connection) -> None:
    os.environ["TVM_NUM_THREADS"] = "1"
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    quiet = os.open(os.devnull, os.O_WRONLY)
    os.dup2(quiet, 1)
    os.dup2(quiet, 2)
    while True:
        suite, case = tests[pipe.recv()]
        pipe.send(check(suite, case))
