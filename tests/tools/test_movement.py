"""The table of movement: what fails is a row, and the totals are right."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from tools.movement import __main__ as movement
from tools.movement.case import explain


def side(left: list[str], planned: int) -> dict[str, Any]:
    kernels = [{"kernel": "k", "reason": reason} for reason in left]
    return {
        "movement_kernels_left": kernels,
        "bytes_moved": 2_000_000 * len(left),
        "kernel_bytes": 30_000_000,
        "planned_bytes": planned,
    }


def row(network: str, planned: int) -> dict[str, Any]:
    return {
        "network": network,
        "mode": "static",
        "exit_code": 0,
        "movement_operators": 5,
        "stock": side(["no rule"] * 3, 4_000_000),
        "ours": side(["forced"], planned),
    }


def test_a_row_and_the_totals() -> None:
    text = movement.table([row("a", 3_000_000), row("b", 5_000_000)])
    assert "| a | static | 5 | 3 | 1 | 1 | 0 | 0 | 6 | 2 | 30 | 30 | 4 | 3 | -25 % |  |" in text
    assert "2 networks: 10 movement operators; kernels left: TVM 6, ours 2" in text
    assert "mean +0 %, above it in 1" in text


def test_a_failure_is_a_row() -> None:
    failed = {"network": "c", "mode": "static", "exit_code": -11, "error": "ended | with -11"}
    text = movement.table([row("a", 3_000_000), failed])
    assert "| c | static | exit -11: ended / with -11 |" in text
    widths = {line.count("|") for line in text.splitlines() if line.startswith("|")}
    assert widths == {len(movement.COLUMNS) + 1}


def test_what_was_timed_belongs_to_its_row(tmp_path: Path) -> None:
    args = argparse.Namespace(libraries=tmp_path)
    folder = tmp_path / "a.static"
    folder.mkdir()
    times = {"all_rounds": 1.1, "ratios": {"off": {"value": 1.25, "low": 1.2, "high": 1.3}}}
    (folder / movement.TIMES).write_text(json.dumps(times))
    rows = [movement.with_time(row(name, 3_000_000), args) for name in "ab"]
    assert "geometric mean 1.25, 1.25 to 1.25" in movement.table(rows)
    noisy = rows[0] | {"ratios": {"off": {"noisy": "1 of 9"}}}
    assert "| ~1.10 |" in movement.table([noisy])


def test_what_is_found_of_a_network() -> None:
    found = explain("vtc_shufflenet_unit", "static")
    assert found["movement_operators"] == 3
    assert found["stock"]["bytes_moved"] == 2 * 60 * 28 * 28 * 4
