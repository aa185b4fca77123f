"""The work of a GPU host, rehearsed without one: a device whose clock the contenders move."""

from __future__ import annotations

import argparse
import json
import math
import os
import re
import subprocess
import sys
import tarfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tvm
from onnx import TensorProto, helper, numpy_helper

from tools.gpu import bench, everything, pack, report
from tools.gpu.cases import BYTES, MIKPOLY, attention, cases, convolution, gemm
from tools.gpu.checks import Check, summary
from tools.gpu.checks import run as run_check
from tools.gpu.compile import table
from tools.gpu.device import Limits, read_clocks
from tools.gpu.inputs import Problem, compared, expected, problem
from tools.gpu.measure import measured
from tools.gpu.networks import NetworkCase, narrowed, network_cases, network_problem
from tools.gpu.sides import Build, Contender, tvmext


class FakeDevice:
    """The CPU, whose clock stands still but for what contenders say they take."""

    target = "llvm"
    limits = Limits({"float16": 1e12, "float32": 1e11}, 1e9, 1 << 20)

    def __init__(self, speeds: Sequence[float] = (1.0,)) -> None:
        self.now = 0.0
        self.speeds = list(speeds)
        self.is_alive = True

    def describe(self) -> dict[str, Any]:
        return {"device": "NVIDIA Fake 1000", "arch": "sm_90a"}

    def array(self, values: Any) -> Any:
        return tvm.runtime.tensor(values, tvm.cpu())

    def seconds(self, call: Callable[[], object]) -> float:
        before = self.now
        call()
        return self.now - before

    def speed(self) -> float:
        return self.speeds.pop(0) if len(self.speeds) > 1 else self.speeds[0]

    def alive(self) -> bool:
        return self.is_alive


PRODUCT = gemm(5, 7, 9, "float16")


def right(case: Any = PRODUCT) -> np.ndarray:
    """What a correct side of a product returns."""
    values = list(problem(case).inputs.values())
    return np.asarray(values[0].astype("float32") @ values[1].astype("float32"))


def side(seconds: float, result: np.ndarray | None = None) -> Build:
    """A side that takes so long and computes that."""

    def build(_: Problem, device: Any) -> Contender:
        def call() -> None:
            device.now += seconds

        return Contender(call, lambda: right() if result is None else result)

    return build


def honest(solved: Problem, device: Any) -> Contender:
    x, w = (array.astype("float32") for array in solved.inputs.values())
    return Contender(lambda: None, lambda: x @ w)


def broken(_: Problem, device: Any) -> Contender:
    raise RuntimeError("out of registers")


def absent(_: Problem, device: Any) -> Contender:
    raise NotImplementedError("products only")


# ------------------------------------------------------------------ what is timed


def test_the_list_has_what_the_issue_asks_for() -> None:
    every = cases()
    shapes = {tuple(c.sizes.values()) for c in every if c.family == "gemm"}
    assert len({case.name for case in every}) == len(every)
    assert len(shapes) == 200
    assert sum(c.family == "gemm" for c in every) == 3 * 200
    assert sum(c.family == "conv" for c in every) == 60
    kinds = [case.name.split("-")[1] for case in every if case.family == "attention"]
    assert len(kinds) == 30 and {"decode", "causal", "full"} == set(kinds)
    assert all(
        any(all(low <= x <= high for x, (low, high) in zip(s, row[:3])) for row in MIKPOLY)
        for s in shapes
    )
    names = [case.name for case in network_cases()]
    assert "vtc_llama3_layer_decode-bfloat16-b16" in names
    assert sum(name.startswith("vtc_") for name in names) == 20


@pytest.mark.parametrize(
    "case",
    [
        gemm(5, 7, 33, "float32"),
        convolution("c", 2, 3, 4, 3, 2, 9, "float32"),
        convolution("c", 1, 3, 4, 5, 1, 6, "float32"),
        attention(2, 3, 6, 6, 8, 1, "float32"),
        attention(1, 2, 1, 9, 8, 0, "float32"),
    ],
    ids=lambda case: case.name,
)
def test_a_case_is_one_problem_for_all(case: Any) -> None:
    """The Relax module, compiled and run, gives what NumPy expects; and not something else."""
    solved = problem(case)
    made = tvmext(solved, FakeDevice())
    assert solved.check(made.result()) < 0.5
    assert solved.check(made.result() + 1e-2) > 1
    assert compared(case, made.result()).shape == expected(case, solved.inputs).shape


def test_a_network_in_half_precision() -> None:
    with network_problem(NetworkCase("vtc_shufflenet_unit", "float16", 2)) as solved:
        assert solved.inputs["x"].dtype == np.float16 and solved.inputs["x"].shape[0] == 2
        result = tvmext(solved, FakeDevice()).result()
        assert result.dtype == np.float16
        assert solved.check(result) < 1
        assert solved.check(result + np.float16(0.2)) > 1
        assert solved.check(result[:1]) == math.inf


def test_constants_become_halves_but_for_scales_of_resize() -> None:
    nodes = [
        helper.make_node("Constant", [], [name], value=numpy_helper.from_array(value))
        for name, value in (("c", np.float32([2])), ("s", np.float32([1, 1, 2, 2])))
    ]
    nodes += [
        helper.make_node("Mul", ["x", "c"], ["m"]),
        helper.make_node("Resize", ["m", "", "s"], ["y"]),
    ]
    x, y = (helper.make_tensor_value_info(n, 1, [1, 1, k, k]) for n, k in (("x", 2), ("y", 4)))
    model = narrowed(helper.make_model(helper.make_graph(nodes, "g", [x], [y])), "float16")
    types = [node.attribute[0].t.data_type for node in model.graph.node[:2]]
    assert types == [TensorProto.FLOAT16, TensorProto.FLOAT]


# ------------------------------------------------------------------ how it is timed


def test_a_row_says_who_is_faster_and_who_failed() -> None:
    sides = {
        "tvmext": side(1e-4),
        "torch": side(2e-4),
        "triton": side(1e-5, right() + 1),
        "tvm": broken,
        "torch.compile": absent,
    }
    row = measured(problem(PRODUCT), FakeDevice(), sides, rounds=10)
    assert row["sides"]["tvmext"]["median_us"] == pytest.approx(100)
    assert row["ratios"]["torch"]["value"] == pytest.approx(2)
    assert "triton" not in row["sides"] and row["errors"]["triton"] > 1
    assert row["failed"]["tvm"] == "RuntimeError: out of registers"
    assert set(row["failed"]) == {"triton", "tvm"}
    assert row["missing"] == {"torch.compile": "products only"}
    text = report.text({"bench": [{"case": "c", "family": "conv", **row}] * 2})
    assert re.search(r"\| conv +\| torch.compile +\| products only +\| +2 \|", text)


def test_a_clock_that_falls_makes_samples_noisy() -> None:
    device = FakeDevice([1.0, 0.5])
    row = measured(problem(PRODUCT), device, {"tvmext": side(1e-4), "torch": side(1e-4)}, rounds=60)
    assert row["sides"]["tvmext"]["clean"] < row["sides"]["tvmext"]["taken"] == 60


def test_nothing_is_timed_where_ours_fails() -> None:
    row = measured(
        problem(PRODUCT), FakeDevice(), {"tvmext": broken, "torch": side(1e-4)}, rounds=9
    )
    assert "tvmext" not in row["sides"] and row["ratios"] == {}


def test_clocks_are_read_as_far_as_they_are_numbers() -> None:
    found = read_clocks("1755, 1980, 2619, 41, [N/A], 0x0000000000000004\n")
    assert found["clocks.sm"] == 1755 and found["clocks_event_reasons.active"] == 4
    assert "power.draw" not in found
    assert read_clocks("") == {}


# ------------------------------------------------------------------ processes that crash


def crashing_at(culprit: str) -> bench.Start:
    """A process that writes a row per case, ends half a line into `culprit`'s, and is then gone."""

    def start(names: Sequence[str], file: Path, settings: Mapping[str, Any], limit: float) -> int:
        for name in names:
            if name == culprit:
                with file.open("a") as stream:
                    stream.write('{"case": "' + name)
                return -11
            bench.append(file, {"case": name, "sides": {"tvmext": {"median_us": 1.0}}})
        return 0

    return start


def test_a_crash_costs_one_row(tmp_path: Path) -> None:
    file = tmp_path / "new" / "bench.jsonl"
    rows = bench.run(list("abcd"), file, {}, 1, start=crashing_at("b"))
    assert [row["case"] for row in rows] == list("abcd")
    assert [("error" in row) for row in rows] == [False, True, False, False]
    assert "-11" in rows[1]["error"]


def test_resuming_runs_what_is_missing(tmp_path: Path) -> None:
    file = tmp_path / "bench.jsonl"
    bench.append(file, {"case": "a", "old": True})
    rows = bench.run(["a", "b"], file, {}, 1, resume=True, start=crashing_at(""))
    assert rows[0]["old"] and "sides" in rows[1]
    assert "old" not in bench.run(["a"], file, {}, 1, start=crashing_at(""))[0]


def test_a_worker_measures_and_leaves_a_dead_gpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [c.name for c in cases() if c.family == "gemm" and c.flops < 1e6][:2]
    monkeypatch.setattr(bench, "SIDES", {"tvmext": ("tvm", honest), "tvm": ("tvm", broken)})
    device = FakeDevice()
    settings = {"against": "", "seconds": 0.0}
    bench.work(names, tmp_path / "rows", settings, device)
    rows = list(bench.read(tmp_path / "rows"))
    assert [row["case"] for row in rows] == names
    assert all(row["failed"]["tvm"] and "tvmext" in row["sides"] for row in rows)
    assert rows[0]["roofline_us"] > 0
    device.is_alive = False
    with pytest.raises(SystemExit):
        bench.work(names, tmp_path / "again", settings, device)
    assert len(list(bench.read(tmp_path / "again"))) == 1


# ------------------------------------------------------------------ checks


def python(code: str) -> Check:
    return Check("it", (sys.executable, "-c", code), (), 60)


@pytest.mark.parametrize(
    ("code", "result", "detail"),
    [
        ("print('3 passed in 1 s')", "passed", "3 passed"),
        ("print('5 skipped in 1 s')", "failed", "no test was run"),
        ("print('FAILED tests/a.py\\n1 failed, 2 passed'); exit(1)", "failed", "FAILED tests/a.py"),
    ],
)
def test_a_check_that_ran_nothing_has_failed(code: str, result: str, detail: str) -> None:
    told = run_check(python(code))
    assert told["result"] == result and detail in told["detail"]


def test_a_check_is_skipped_only_where_something_is_missing() -> None:
    told = run_check(Check("it", ("true",), ("sys", "no-such-sanitizer"), 1))
    assert told["result"] == "skipped" and "no-such-sanitizer" in told["detail"]


def test_complaints_of_a_sanitizer_are_kept() -> None:
    said = (
        "========= COMPUTE-SANITIZER\n========= Invalid __global__ read of size 4\n2 passed in 3 s"
    )
    assert "Invalid __global__ read" in summary(said, 99)


# ------------------------------------------------------------------ a host without network


def test_the_archive_runs_tests_alone(tmp_path: Path) -> None:
    """With nothing but NumPy beside it: pytest collects, the stand-in for hypothesis draws."""
    pack.pack(tmp_path / "all.tar.xz")
    assert (tmp_path / "all.tar.xz").stat().st_size < 4.5e6
    with tarfile.open(tmp_path / "all.tar.xz") as archive:
        archive.extractall(tmp_path, filter="fully_trusted")
    there = tmp_path / "tvmext"
    assert (there / "tvmext/schedules/cuda/__init__.py").exists(), "links to rooms are kept"
    (there / "tests/test_drawn.py").write_text(
        "from hypothesis import given, settings\n"
        "from hypothesis import strategies as st\n"
        "drawn = []\n"
        "@settings(max_examples=30, deadline=None)\n"
        "@given(st.sampled_from([1, 2, 3]), st.booleans())\n"
        "def test_it(n, flag):\n"
        "    drawn.append((n, flag))\n"
        "def test_all_came():\n"
        "    assert len(drawn) == 30 and len(set(drawn)) == 6\n"
    )
    command = [sys.executable, "-S", "-m", "pytest", "-q", "tests/test_drawn.py"]
    environment = {"PYTHONPATH": str(there), "PATH": os.environ["PATH"]}
    done = subprocess.run(command, cwd=there, env=environment, capture_output=True, check=False)
    assert b"2 passed" in done.stdout, done.stdout + done.stderr


# ------------------------------------------------------------------ everything, and the report


def test_everything_is_written_and_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shape = gemm(4096, 4096, 4096, "float16")

    def start(names: Sequence[str], file: Path, settings: Mapping[str, Any], limit: float) -> int:
        ratio = {"value": 0.95, "low": 0.94, "high": 0.96, "pairs": 30}
        for name in names:
            bench.append(
                file,
                {
                    "case": name,
                    "family": "gemm",
                    "flops": shape.flops,
                    "roofline_us": 139.0,
                    "sides": {"tvmext": {"median_us": 200.0}, "torch": {"median_us": 190.0}},
                    "ratios": {"torch": ratio},
                    "failed": {"tvm": "wrong"},
                },
            )
        return 0

    args = argparse.Namespace(
        only="gemm-*-float16", against=None, seconds=1.0, limit=1.0, resume=False,
        output=tmp_path / "raw", no_bench=False,
    )  # fmt: skip
    machine = everything.described(FakeDevice())
    wanted = [python(""), Check("sanitizer", ("true",), ("no-such-thing",), 1)]

    def check(one: Check) -> dict[str, Any]:
        return {"name": one.name, "result": "skipped", "seconds": 0.0, "detail": "not here"}

    code = everything.everything(
        args, machine, wanted, folder=tmp_path / "results", start=start, check=check
    )
    (file,) = (tmp_path / "results").glob("*nvidia-fake-1000.json")
    results = json.loads(file.read_text())
    assert code == 0 and len(results["bench"]) == 200 and len(results["checks"]) == 2
    assert results["machine"]["versions"]["numpy"] == np.__version__
    said = capsys.readouterr().out
    assert "| gemm, large | torch |" in said and "0.9: reached" in said and "70%" in said
    assert "tvm: wrong" in said

    failing = {"name": "it", "result": "failed", "seconds": 0.0}
    args.no_bench = True
    assert everything.everything(
        args, machine, wanted, folder=tmp_path / "results", check=lambda _: failing
    )


def test_goals_that_are_missed_are_told() -> None:
    ratio = {"value": 1.1, "low": 1.0, "high": 1.2, "pairs": 30}
    row = {"case": "vtc_x", "family": "network", "ratios": {"torch.compile": ratio}}
    assert "1.28: missed" in report.groups_table([row])
    noisy = {**row, "ratios": {"torch.compile": {"noisy": "clock"}}}
    assert "missed" not in report.groups_table([noisy])


def test_the_share_of_the_roofline() -> None:
    limits = Limits({"float16": 1e12, "float32": 1e11}, 1e9, 1)
    assert limits.seconds(1e12, 1, "float16") == 1
    assert limits.seconds(1, 2e9, "float16") == 2
    case = gemm(2, 3, 4, "bfloat16")
    assert case.bytes == BYTES["bfloat16"] * (8 + 12 + 6) and case.flops == 48


def test_the_table_of_what_was_compiled() -> None:
    good = {
        "network": "a", "mode": "static", "exit_code": 0, "cpu_seconds": 3.2, "kernels": 4,
        "code": 5000, "registers": 99, "spills": {"k": 8}, "slow": ["s"],
    }  # fmt: skip
    bad = {"network": "b", "mode": "static", "exit_code": 3, "error": "operator X"}
    text = table({"sm_80": [good, bad], "sm_90a": [good]})
    assert "| a | static | 3 | 4 | 5 | 99 | 3 | 4 | 5 | 99 | 1 | 1 |" in text
    assert "2 of 3 compile." in text and "operator X" in text
    assert "1 kernels spill registers." in text and "a static: s" in text
