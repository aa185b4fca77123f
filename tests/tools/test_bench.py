"""The measuring instrument: what it makes of timings, good and bad, and that it runs."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

from tools.bench import oracle, report, workers
from tools.bench.__main__ import main
from tools.bench.cases import all_cases, named
from tools.bench.cases.case import Graph, node, random
from tools.bench.contenders import changes_layout, onnx_runtime, tvmext
from tvmext.measure.agreement import agreement
from tvmext.measure.figures import figures
from tvmext.measure.profile import Kernel
from tvmext.measure.samples import MIN_PAIRS, Noisy, Ratio, Round, Sample, clean, ratio, timing
from tvmext.measure.timing import measure

# ------------------------------------------------------------------ samples to figures


def rounds(
    ours: Sequence[float], theirs: Sequence[float], speeds: Sequence[float] | None = None
) -> list[Round]:
    """Rounds with these seconds; `speeds` are those of the processor around our samples."""
    return [
        {"ours": Sample(mine, speed), "theirs": Sample(other, 1.0)}
        for mine, other, speed in zip(ours, theirs, speeds or [1.0] * len(ours))
    ]


def test_ratio_is_the_median_over_pairs() -> None:
    drifting = [1 + 0.1 * turn for turn in range(20)]
    found = ratio(rounds(drifting, [2 * seconds for seconds in drifting]), "ours", "theirs")
    assert found == Ratio(2.0, 2.0, 2.0, 20)


def test_disturbed_samples_do_not_count() -> None:
    disturbed = [turn % 3 == 0 for turn in range(30)]
    taken = rounds(
        [3.0 if bad else 1.0 for bad in disturbed],
        [1.5] * 30,
        [0.5 if bad else 1.0 for bad in disturbed],
    )
    assert ratio(taken, "ours", "theirs") == Ratio(1.5, 1.5, 1.5, 20)
    assert timing(taken, "ours").median == 1.0
    assert timing(taken, "ours").clean == 20


def test_an_interrupted_sample_does_not_count() -> None:
    taken = [{"ours": Sample(1.0, 1.0, interruptions=turn % 2)} for turn in range(20)]
    assert clean(taken, "ours") == [turn % 2 == 0 for turn in range(20)]


def test_a_busy_machine_gives_no_ratio() -> None:
    speeds = [1.0] * (MIN_PAIRS - 1) + [0.6] * 30
    found = ratio(rounds([1.0] * len(speeds), [2.0] * len(speeds), speeds), "ours", "theirs")
    assert isinstance(found, Noisy)
    assert f"{MIN_PAIRS - 1} of {len(speeds)} rounds" in found.reason


def test_ratios_that_disagree_give_none() -> None:
    found = ratio(rounds([1.0, 1.6] * 15, [1.0] * 30), "ours", "theirs")
    assert isinstance(found, Noisy)
    assert "0.6" in found.reason
    assert "1.00" in found.reason


@pytest.mark.parametrize(("usual", "counts"), [(1.0, True), (0.84, True), (0.5, False)])
def test_code_may_lower_the_clock_but_a_neighbour_may_not(usual: float, counts: bool) -> None:
    taken = rounds([1.0] * 20, [1.0] * 20, [usual] * 20)
    assert clean(taken, "ours") == [counts] * 20


def test_timing_of_a_busy_machine_says_so() -> None:
    found = timing(rounds([2.0, 1.0, 3.0], [1.0] * 3), "ours")
    assert (found.minimum, found.median) == (1.0, 2.0)
    assert found.noisy == "3 of 3 samples undisturbed"


def test_figures_subtract_the_call_and_the_edges() -> None:
    taken = rounds([3e-6] * 10, [5e-6] * 10)
    found = figures(taken, "ours", {"ours": 1e-6, "theirs": 2e-6}, {"ours": 0.5, "theirs": 1.0})
    assert json.loads(json.dumps(found)) == found
    assert found["sides"]["ours"]["net_us"] == pytest.approx(2.0)
    assert found["sides"]["ours"]["interior_us"] == pytest.approx(1.0)
    ratios = found["ratios"]["theirs"]
    assert ratios["value"] == pytest.approx(5 / 3)
    assert ratios["net"] == pytest.approx(1.5)
    assert ratios["interior"] == pytest.approx(3.0)


# ------------------------------------------------------------------ taking turns


class SteadyMachine:
    """A machine that always runs at its peak."""

    threads = 1
    peak = 1.0

    def probe(self) -> float:
        return 1.0


def test_contenders_take_turns_until_there_is_enough() -> None:
    called: list[str] = []
    calls = {name: (lambda name=name: called.append(name)) for name in "ab"}
    found = measure(calls, SteadyMachine(), lambda: 0, seconds=60, enough=10)
    assert len(found) == 10
    assert all(set(turn) == {"a", "b"} for turn in found)
    changes = Counter(pairwise(called))
    assert changes["a", "b"] >= 5
    assert changes["b", "a"] >= 5


def test_measuring_ends_when_the_time_is_over() -> None:
    counter = iter(range(10**9))
    found = measure({"a": lambda: None}, SteadyMachine(), lambda: next(counter), seconds=0.05)
    assert found
    assert not any(clean(found, "a"))


# ------------------------------------------------------------------ cases


def test_there_are_as_many_cases_as_promised() -> None:
    cases = all_cases()
    families = Counter(case.family for case in cases)
    assert len({case.name for case in cases}) == len(cases)
    assert families["gemm"] >= 60
    convolutions = ("conv", "conv1x1", "depthwise", "convtranspose")
    assert sum(families[family] for family in convolutions) >= 40
    assert families["attention"] >= 12
    assert len(cases) - sum(families[f] for f in ("gemm", "bmm", "attention", *convolutions)) >= 20


@pytest.mark.parametrize(
    "name",
    [
        "attention/bert,128,padding",
        "attention/clip_text,77,causal",
        "attention/llama,decode,gqa",
    ],
)
def test_the_forms_of_attention_agree(name: str) -> None:
    case = named(name)
    first, *others = (form() for form in (case.graph, *case.rivals))
    expected = onnx_runtime(first.model(), first.inputs, 1).result
    assert others
    for other in others:
        agreement(onnx_runtime(other.model(), other.inputs, 1).result, expected)


def test_flops_of_a_convolution() -> None:
    case = named("conv/resnet50:64-64,k3,56x56")
    assert case.flops == 2 * 64 * 64 * 9 * 56 * 56
    assert named("convtranspose/unet:128-64,k2,64x64,s2").flops == 2 * 128 * 64 * 4 * 64 * 64


def test_disagreement_is_an_error() -> None:
    right = random(4, 4)
    assert agreement(right, right) == 0
    with pytest.raises(ValueError, match="wrong result"):
        agreement(right + 1, right)
    with pytest.raises(ValueError, match="another kind"):
        agreement(right[0], right)


# ------------------------------------------------------------------ profiles


def test_kernels_are_timed_one_by_one() -> None:
    graph = Graph(
        [node("MatMul", "x w", "p"), node("Softmax", "p", "y")],
        {"x": random(4, 8)},
        "y",
        {"w": random(8, 16)},
    )
    ours = tvmext(graph.model(), graph.inputs)
    agreement(ours.result, onnx_runtime(graph.model(), graph.inputs, 1).result)
    assert ours.interior() == 1.0


@pytest.mark.parametrize(
    ("name", "only_layout"),
    [("transpose1", True), ("fused_reshape_transpose2", True), ("fused_add_transpose", False)],
)
def test_kernels_that_only_change_the_layout_are_told_apart(name: str, only_layout: bool) -> None:
    assert changes_layout(Kernel(0, name, (), 1.0)) == only_layout


# ------------------------------------------------------------------ oracle


def test_the_pick_is_compared_with_the_fastest_tile(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only speeds are made up: the tiles are compiled, run, and give the right result."""
    monkeypatch.setattr(oracle, "register_tiles", lambda _registers: [(2, 1), (5, 1)])
    seconds = {"pick": 2.0, "2x1": 1.6, "5x1": 4.0}

    def turns(calls: Mapping[str, Any]) -> list[Round]:
        assert set(calls) == set(seconds)
        return [{name: Sample(seconds[name], 1.0) for name in calls} for _ in range(10)]

    found = oracle.oracle_row(named("gemm/13x129x65"), 1, turns)
    assert found["best"] == "2x1"
    assert found["picked"] not in ("2x1", "5x1")
    assert found["share"] == pytest.approx(0.8)


def test_decisions_without_one_tile_are_those_a_cost_model_may_choose() -> None:
    def turns(calls: Mapping[str, Any]) -> list[Round]:
        assert len(calls) > 1
        assert all("scores" in name for name in calls if name != oracle.PICK)
        return [{name: Sample(1.0 + (name == oracle.PICK), 1.0) for name in calls}] * 10

    found = oracle.oracle_row(named("attention/swin,windows"), 1, turns)
    assert found["picked"] != found["best"]
    assert found["share"] == pytest.approx(0.5)


def test_no_choice_no_oracle(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(oracle, "choices", dict)
    found = oracle.oracle_row(named("norm/layer,1x768"), 1, lambda _: [])
    assert "no rule has a choice" in found["error"]


def test_the_oracle_is_summed_up_without_what_was_noisy() -> None:
    rows = [{"share": 1.0}, {"share": 0.25}, {"noisy": "why"}]
    assert report.oracle_summary(rows) == "pick / best: geometric mean 0.500, least 0.25, 2 cases"


# ------------------------------------------------------------------ tables


def row(name: str, **ratios: Any) -> dict[str, Any]:
    side = {"min_us": 1.0, "median_us": 2.0, "net_us": 1.0, "noisy": ""}
    return {
        "case": name,
        "family": name.partition("/")[0],
        "threads": 1,
        "roofline_us": 0.5,
        "sides": {"tvmext": side, "onnxruntime": side},
        "ratios": {"onnxruntime": ratios},
    }


def test_a_noisy_row_has_no_ratio() -> None:
    table = report.ops_table([row("gemm/a", noisy="why")], ["onnxruntime"])
    line = table.splitlines()[-1]
    assert "noisy" in line
    assert "1.00 (" not in line
    assert "50%" in line


def test_families_are_summed_up_by_geometric_means() -> None:
    rows = [
        row("gemm/a", value=1.0, low=1.0, high=1.0, pairs=9),
        row("gemm/b", value=4.0, low=4.0, high=4.0, pairs=9),
        row("gemm/c", noisy="why"),
    ]
    cells = report.family_table(rows, "onnxruntime").splitlines()[-1].split("|")
    assert [cell.strip() for cell in cells[1:-1]] == [
        "gemm",
        *("1", "3", "1", "0"),
        *("2.00", "", ""),
        "1.00",
    ]


# ------------------------------------------------------------------ end to end


def test_operators_from_the_command_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "rows.json"
    arguments = ["gemm/3x7x5", "conv1x1/*b0:672-28*", "--no-torch", "--seconds", "0.1"]
    assert main(["ops", *arguments, "--json", str(target)]) == 0
    printed = capsys.readouterr().out
    assert "| gemm/3x7x5" in printed
    document = json.loads(target.read_text())
    assert document.keys() == {"date", "versions", "machines", "rows"}
    assert document["machines"][0]["peak_gflops"] > 0
    first, second = document["rows"]
    assert first["flops"] == 2 * 3 * 7 * 5
    assert first["max_abs"] < 1e-4
    assert first["sides"].keys() == {"tvmext", "onnxruntime"}
    assert first["sides"]["tvmext"]["min_us"] > 0
    assert first["ratios"]["onnxruntime"].keys() & {"value", "noisy"}
    assert "interior_us" in second["sides"]["tvmext"]


def test_a_worker_that_dies_costs_one_row() -> None:
    requests = [{"case": "gemm/none"}, {"case": "gemm/3x7x5"}]
    settings = {"threads": 1, "against": ["onnxruntime"], "seconds": 0.1}
    machine, failed, measured = workers.rows(requests, settings, 120)
    assert machine["threads"] == 1
    assert failed == {
        "case": "gemm/none",
        "threads": 1,
        "error": "the worker ended with exit code 1",
    }
    assert "sides" in measured


def test_a_model_from_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    graph = Graph([node("MatMul", "x w", "y")], {"x": random(3, 8)}, "y", {"w": random(8, 4)})
    model = graph.model()
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "batch"
    del model.graph.output[:]
    model.graph.output.append(helper.make_tensor_value_info("y", 1, ["batch", 4]))
    del model.graph.value_info[:]
    path, target = tmp_path / "net.onnx", tmp_path / "rows.json"
    onnx.save(model, path)
    arguments = [str(path), "--dim", "batch=5", "--seconds", "0.1", "--json", str(target)]
    assert main(["model", *arguments]) == 0
    (found,) = json.loads(target.read_text())["rows"]
    assert found["name"] == "net"
    assert found["max_abs"] < 1e-5
    assert found["sides"].keys() == {"tvmext", "onnxruntime"}
    (kernel,) = found["profile"]["kernels"]
    assert kernel["shapes"][-1] == [5, 4]
    assert kernel["flops"] == 2 * 5 * 8 * 4
    assert kernel["kernel"] in capsys.readouterr().out


def test_an_unknown_case_is_the_users_mistake(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ops", "nonsense/*"]) == 2
    assert "--list" in capsys.readouterr().err


def test_case_inputs_are_the_same_every_time() -> None:
    first, second = (named("gemm/3x7x5").graph() for _ in range(2))
    assert np.array_equal(first.inputs["x"], second.inputs["x"])
