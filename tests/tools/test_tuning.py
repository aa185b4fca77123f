"""The comparison with MetaSchedule: which products, one short run, the table."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

import pytest

from tools.bench import tuning


def test_products_are_drawn_by_a_seed_and_none_is_a_plain_sum() -> None:
    found = tuning.drawn(6, 0)
    assert found == tuning.drawn(6, 0) != tuning.drawn(6, 1)
    assert len(found) == 6
    for case in found:
        assert min(case.m, case.n, case.k) >= tuning.LEAST_SIZE
        assert tuning.LEAST <= case.flops / 2 <= tuning.MOST


def test_a_product_is_tuned_until_its_time_is_up(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One round of two trials; results of both kernels are compared on the way.

    They are drawn at random: to evolve them takes half a minute.
    """
    monkeypatch.setattr(tuning, "SEARCH", "replay-trace")
    monkeypatch.setattr(tuning, "REPEAT_MS", 5)
    monkeypatch.setattr(tuning, "TURN_SECONDS", 0.05)
    file = tmp_path / "tuning.json"
    args = Namespace(gemms=1, seed=0, only="", seconds=0.0, batch=2, json=file)
    assert tuning.run(args) == 0
    (case,) = tuning.drawn(1, 0)
    printed = capsys.readouterr().out
    assert printed.count(f"| {case.name} ") == 2  # the round, and both in turns
    assert "within the time: 0 of 1" in printed or "within the time: 1 of 1" in printed
    monkeypatch.setattr(tuning, "_row", None)  # what the file has is not tuned again
    assert tuning.run(args) == 0
    assert f"| {case.name} " in capsys.readouterr().out


def test_the_table_tells_when_it_was_as_fast() -> None:
    rounds = [
        {"trials": 64, "seconds": 20.0, "us": 30.0},
        {"trials": 128, "seconds": 40.0, "us": 9},
    ]
    row = {"case": "any/1x2x3", "rounds": rounds, "compile_seconds": 2.0, "matched": True}
    text = tuning.table([{**row, "evaluated_us": 10.0, "ours_us": 10.0, "tuned_us": 9.0}])
    assert " 3.00 |" in text
    assert "time to tune / to compile 20" in text
    assert "1 of 1" in text
