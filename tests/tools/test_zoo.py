"""The zoo tool: what fails is a row, and the table is right about it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from tools.zoo import __main__ as zoo
from tools.zoo import case, runner, sizes

PASSED = {
    "network": "a",
    "mode": "static",
    "exit_code": 0,
    "max_abs": 1e-6,
    "seconds": 2.0,
    "bytes": 1_000_000,
    "compiler_rss": 300_000_000,
    "latency": {
        "1": {
            "sides": {
                "tvmext": {"min_us": 2000.0, "median_us": 3000.0, "noisy": False},
                "onnxruntime": {"min_us": 4000.0, "median_us": 5000.0, "noisy": True},
            },
            "ratios": {"onnxruntime": {"value": 2.0, "low": 1.9, "high": 2.1}},
        },
        "2": {"sides": {}, "ratios": {"onnxruntime": {"noisy": "too busy"}}},
    },
}
CRASHED = {"network": "b", "mode": "static", "exit_code": -11, "error": "ended | with -11"}


def test_a_failure_is_a_row() -> None:
    text = zoo.table([PASSED, CRASHED])
    assert "| a | static | passed | 1.0e-06 | 2.0 | 1.0 | 300 | 2 / 3 | 4 / 5 ? | 2.00" in text
    assert "| b | static | exit -11: ended / with -11 |" in text
    assert "- static: 1 of 2 pass" in text
    assert "- static, threads: 1; time of ONNX Runtime / tvmext: geometric mean 2.00" in text
    assert "- static, threads: 2; time of ONNX Runtime / tvmext: none; no ratio for 1" in text
    widths = {line.count("|") for line in text.splitlines() if line.startswith("|")}
    assert widths == {14}


def test_every_network_has_its_sizes() -> None:
    names = case.networks()
    assert len(names) == 45
    assert sum("dynamic" in case.modes(name) for name in names) == 34
    assert list(case.sizes({"batch": 2, "seq": 64}, "dynamic")) == [
        {"batch": 1, "seq": 64},
        {"batch": 3, "seq": 7},
        {"batch": 2, "seq": 21},
    ]
    assert list(case.sizes({"batch": 2}, "static")) == [{"batch": 1}]


@pytest.mark.parametrize("dims", [["batch"], ["batch", "seq", "past"], ["height", "width"]])
def test_every_dim_has_sixteen_sizes(dims: list[str]) -> None:
    found = sizes.several(dims, 16)
    assert all(len({choice[name] for choice in found}) == 16 for name in dims)
    assert all(0 in {choice[name] for choice in found} for name in dims)
    assert len(dims) == 1 or all(any(choice.values()) for choice in found)


@pytest.mark.parametrize(
    ("text", "quoted"),
    [
        (
            "1 operator is not supported:\n  Loop at node 'a'\n  try: other\n",
            "1 operator is not supported: Loop at node 'a'",
        ),
        ("cannot read 'x'\n  try: another\n", "cannot read 'x'"),
        ("Traceback (most recent call last):\n  File\nKeyError: 'x'\n", "KeyError: 'x'"),
        ("", ""),
    ],
)
def test_what_is_quoted_of_an_error(text: str, quoted: str) -> None:
    assert runner.first_line(text) == quoted


def test_resume_keeps_the_rows_that_are_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "zoo.json"
    row = CRASHED | {"network": "vtc_shufflenet_unit"}
    path.write_text(json.dumps({"machine": "m", "rows": [row]}))

    def run(network: str, mode: str, *_: object) -> runner.Row:
        return {**PASSED, "network": network, "mode": mode}

    monkeypatch.setattr(zoo, "run_case", run)
    arguments = ["--only", "vtc_shuffle*", "--resume", "--json", str(path)]
    monkeypatch.setattr(sys, "argv", ["zoo", *arguments])
    assert zoo.main() == 1
    assert "1 of 2 pass" in capsys.readouterr().out
    rows = json.loads(path.read_text())["rows"]
    assert [r["network"] for r in rows] == ["vtc_shufflenet_unit", "vtc_shufflenet_unit_s2"]
    assert rows[0] == row
