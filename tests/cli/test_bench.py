"""``tvmext bench``: what it reports, and whom it compares with."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pytest

from tests.cli.conftest import Call
from tvmext.errors import CheckFailed
from tvmext.measure import bench


def test_latencies(tvmext: Call, tiny_library: Path, tmp_path: Path) -> None:
    target = tmp_path / "bench.json"
    flags = ["--duration", "0.05", "--warmup", "0", "--percentiles", "50,99.9", "--export", target]
    result = tvmext("bench", tiny_library, "--dim", "batch=3", "--json", *flags)
    assert result.code == 0, result.err
    found = result.json
    assert found == json.loads(target.read_text())
    assert found["sizes"] == {"batch": 3}
    latency = found["latency"]
    assert latency["runs"] >= 1
    assert latency["throughput"] == pytest.approx(latency["runs"] / latency["total"])
    assert latency["percentiles"].keys() == {"50", "99.9"}
    assert latency["minimum"] <= latency["percentiles"]["50"] <= latency["maximum"]


def test_rivals_compute_the_same_and_take_turns(
    tvmext: Call, tiny: Path, tiny_library: Path
) -> None:
    flags = ["--against", "ort,tvm", "--duration", "0.1", "--warmup", "0"]
    result = tvmext("bench", tiny, tiny_library, *flags)
    assert result.code == 0, result.err
    for name in ("tvmext", "onnxruntime", "tvm"):
        assert any(line.startswith(f"{name} ") for line in result.out.splitlines()), name


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--against", "nobody"], "nobody"),
        (["--against", "ort"], "is a library"),
        (["--percentiles", "101"], "--percentiles 101"),
        (["--export", "/no/such/folder/b.json"], "/no/such/folder"),
    ],
)
def test_mistakes(tvmext: Call, tiny_library: Path, flags: list[str], said: str) -> None:
    result = tvmext("bench", tiny_library, *flags)
    assert result.code == 2
    assert said in result.err


def test_a_wrong_result_is_not_timed() -> None:
    with pytest.raises(CheckFailed, match="'y' is not that of somebody"):
        bench._agree("somebody", lambda: {"y": np.ones(3)}, {"y": np.zeros(3)})


def test_samples_and_percentiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that a call moves on by 1, 2, 3 ... seconds in turn."""
    now = 0.0
    steps = itertools.count(1)

    def call() -> None:
        nonlocal now
        now += next(steps)

    monkeypatch.setattr(bench.time, "perf_counter", lambda: now)
    found = bench.latency(call, warmup=0, duration=9, percentiles=(50,))
    assert found.runs == 3, "2 + 3 + 4 seconds, after one call to warm up"
    assert (found.minimum, found.maximum, found.total) == (2, 4, 9)
    assert found.percentiles == {50: 3}
    assert found.throughput == pytest.approx(1 / 3)
