"""Run ONNX's tests one by one in forked workers; a crash is a result."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tvmext.errors import TvmextError, UnsupportedError
from tvmext.onnx_backend import InProcessBackend

from .. import forked
from . import cases

REASON_CHARS = 300


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
    work = forked.Work(lambda test: check(*test), lambda test, end: _ended(*test, end))
    forked.run(tests, work, forked.Limits(limit), heard, workers)


def _ended(suite: str, case: Any, end: forked.End) -> Result:
    model = cases.model_of(case)
    operator, kind = cases.operator_of(model, case.name), cases.kind_of(model)
    reason = f"exit {end.exit_code}"
    return Result(suite, case.name, operator, kind, 0, end.status, reason, (), end.seconds)
