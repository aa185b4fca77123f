"""Records of measurements decide where they fit, and nowhere else."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tvm.relax import op

from tests.passes.modules import assert_same, build, random
from tvmext.arch import FAMILIES
from tvmext.errors import OptionError
from tvmext.options import Options
from tvmext.passes.constants import constant
from tvmext.schedules.cpu.choices import choices
from tvmext.schedules.cpu.gemm import Gemm
from tvmext.schedules.records import (
    FORMAT,
    Recorded,
    Records,
    machine_of,
    read,
    versions,
    workload_of,
)
from tvmext.schedules.rule import Kernel
from tvmext.schedules.rules import decide_for, rules_for
from tvmext.schedules.schedule import ScheduleKernels, constant_args
from tvmext.schedules.select import plain

ARCH = FAMILIES["x86-64-v3"]
LISTED = choices()


def network(rows: int = 24) -> Any:
    """x @ w as a kernel, before it is scheduled."""
    from tvm.relax import transform

    mod = build(
        [("x", (rows, 30), "float32")],
        lambda bb, x: bb.emit(op.matmul(x, constant(random(30, 40)))),
    )
    return transform.LegalizeOps()(mod)


def kernel_of(mod: Any) -> Kernel:
    (var,) = constant_args(mod)
    return Kernel(var.name_hint, mod[var], constant_args(mod)[var])


KERNEL = kernel_of(network())
WORKLOAD = Gemm().match(KERNEL)
OWN, *OTHERS = GEMM = LISTED["gemm"].candidates(WORKLOAD, ARCH)


def record(taken: Any, seconds: float, **changed: Any) -> str:
    row = {
        "record": FORMAT,
        "workload": workload_of(KERNEL, Gemm()),
        "machine": machine_of(ARCH),
        "versions": versions(),
        "rule": "gemm",
        "seconds": seconds,
        "device": "a machine",
        "decision": plain(taken),
    }
    return json.dumps(row | changed)


def decided(*lines: str, kernel: Kernel = KERNEL) -> tuple[Any, str]:
    rule = Gemm()
    return Recorded(Records.of(lines), LISTED)(rule, kernel, rule.match(kernel), ARCH)


def test_the_fastest_is_taken() -> None:
    times = (record(OWN, 3e-6), record(OTHERS[0], 2e-6), record(OTHERS[1], 2.5e-6))
    assert decided(*times) == (OTHERS[0], "measured: 2 us")
    assert decided(*times, record(OTHERS[0], 4e-6))[0] == OTHERS[1], "the last one counts"


def test_a_small_gain_is_none() -> None:
    decision, why = decided(record(OWN, 3e-6), record(OTHERS[0], 2.99e-6))
    assert decision == OWN and "nothing is faster by 2%" in why


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"workload": "other"}, "not measured"),
        ({"machine": "other"}, "another machine, a machine"),
        ({"versions": {"tvm": "0.1"}}, "other versions, tvm 0.1"),
        ({"decision": {"tile": 3}}, "no longer lists"),
    ],
)
def test_what_does_not_fit_says_why(changed: dict, reason: str) -> None:
    decision, why = decided(record(OTHERS[0], 1e-9, **changed))
    assert decision == OWN and reason in why


def test_kernels_of_other_sizes_are_others() -> None:
    other = kernel_of(network(rows=25))
    assert decided(record(OTHERS[0], 1e-9), kernel=other)[1] == "not measured"


def test_lines_that_are_none_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    lines = [
        "junk",
        "[1]",
        record(OTHERS[0], "fast"),  # type: ignore[arg-type]
        record(OTHERS[0], -1.0),
        record(OTHERS[0], 1e-6),
        record(OTHERS[0], 1e-9)[:-20],
    ]
    path.write_text("\n".join(lines))
    found = read(path)
    assert [text.split(":")[0] for text in found.ignored] == [
        f"line {number}" for number in (1, 2, 3, 4, 6)
    ]
    assert sum(map(len, found.rows.values())) == 1
    with pytest.raises(OptionError, match="no such file"):
        read(tmp_path / "none.jsonl")


def test_machines_differ_by_anything() -> None:
    assert machine_of(ARCH) != machine_of(replace(ARCH, cores=ARCH.cores + 1))


def test_a_network_is_scheduled_by_records(tmp_path: Path) -> None:
    """With the same results, and what the records said among the decisions."""
    path = tmp_path / "records.jsonl"
    path.write_text(record(OTHERS[-1], 1e-6))
    options = Options(records=str(path))
    schedule = ScheduleKernels(ARCH, rules_for(ARCH, options), decide=decide_for(ARCH, options))
    mod = network()
    assert_same(mod, schedule(mod), random(24, 30))
    (told,) = schedule.decisions().values()
    assert told["decision"] == plain(OTHERS[-1])
    assert told["record"] == "measured: 1 us"
