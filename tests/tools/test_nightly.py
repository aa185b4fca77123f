"""A night without its clock: rows, history, verdicts and bisection."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import onnx
import pytest

from tests.tools.nights import DEVICE, kept, run, three_nights
from tools.nightly import __main__ as nightly
from tools.nightly import bisect, build_side, commits, measure, night, sides
from tools.nightly.ahead import Ahead
from tools.nightly.cases import CORE, ORACLE, QUICK, Case, every_case, in_turn
from tools.nightly.dashboard import dashboard
from tools.nightly.history import History, Result
from tools.nightly.judge import Alarm, alarms
from tools.nightly.stats import compare
from tools.nightly.summary import summary
from tools.nightly.turns import family_logs, placed
from tools.zoo.runner import run_module


@pytest.fixture
def history(tmp_path: Path) -> History:
    return three_nights(tmp_path)


def test_history_gives_back_what_it_was_given(history: History) -> None:
    last = history.runs(DEVICE)[-1]
    assert last == (3, run("c" * 40, "bad", "b" * 40))
    results = {each.name: each for each in history.results(3)}
    assert [each.status for each in results.values()] == ["passed", "crashed", "left"]
    assert results["ops/gemm/64x64x64"].comparisons["run"].effect == pytest.approx(0.105, abs=1e-3)
    assert [alarm.kind for alarm in history.alarms(3)] == ["slower", "failed"]
    assert history.series(DEVICE, "us")["zoo/unet static"] == [(1, 80.0), (2, 81.0)]
    assert history.before(DEVICE, "b" * 40)["zoo/unet static"][1]["us"] == 81.0
    assert history.runs("another machine") == []


def test_the_last_good_commit_is_the_base(history: History, tmp_path: Path) -> None:
    assert history.last_good(DEVICE) == "b" * 40
    assert history.last_good("another machine") is None
    never_good = History(tmp_path / "other")
    for commit in "de":
        kept(never_good, run(commit * 40, "bad"), [], [Alarm("a", "wrong", "wrong", "")])
    assert never_good.last_good(DEVICE) == "d" * 40, "the first night is what others start from"


def test_an_interrupted_night_keeps_what_it_has(history: History) -> None:
    number = history.begin(run("f" * 40))
    history.keep(number, Result("ops/a", "passed", figures={"us": 1.0}))
    again = History(history.path.parent)
    assert [each.name for each in again.results(number)] == ["ops/a"]
    assert again.last_good(DEVICE) == "b" * 40
    assert summary(again, DEVICE).startswith("# 2026-11-21: the night did not end")
    assert "the night did not end" in dashboard(again, DEVICE)


def test_what_waited_longest_goes_first(history: History) -> None:
    cases = [Case("ops", "gemm/64x64x64"), Case("zoo", "unet"), Case("zoo", "new")]
    assert [case.model for case in in_turn(cases, history.turns(DEVICE))] == [
        "new",
        "gemm/64x64x64",
        "unet",
    ]


def test_cases() -> None:
    names = [case.name for case in every_case(["llvm", "cuda -arch=sm_90"])]
    assert len(set(names)) == len(names)
    assert set(QUICK) <= set(names)
    assert "zoo/unet.legacy.dyn static on cuda -arch=sm_90" in names
    assert not any("vtc_llama3_layer_decode " in name for name in names), "9 GB with two sides"
    assert {f"ops/{name}" for name in ORACLE} <= set(names)
    families = [name.split("/")[1] for name in names[: names.index("ops/gemm/5x768x768")]]
    assert families.count("softmax") == CORE


def test_growth_is_an_alarm_and_pettiness_is_not() -> None:
    before = {"ops/a": ("passed", {"library_bytes": 1e6, "movement_left": 0.0, "pick": 0.99})}
    same = {"library_bytes": 1.01e6, "movement_left": 0.0, "pick": 0.96}
    worse = {"library_bytes": 1.05e6, "movement_left": 1.0, "pick": 0.9}
    assert alarms([Result("ops/a", "passed", figures=same)], before) == []
    found = alarms([Result("ops/a", "passed", figures=worse)], before)
    assert [alarm.what for alarm in found] == ["library_bytes", "movement_left", "pick"]


def test_what_failed_before_is_no_news() -> None:
    now = [Result("ops/a", "crashed", "x"), Result("ops/b", "wrong", "y"), Result("ops/c", "left")]
    assert [a.kind for a in alarms(now, {})] == ["failed", "wrong"]
    assert alarms(now, {"ops/a": ("crashed", {}), "ops/b": ("wrong", {})}) == []
    assert len(alarms(now, {"ops/a": ("passed", {}), "ops/b": ("crashed", {})})) == 2


def test_whatever_goes_wrong_is_a_status() -> None:
    rows = {
        "wrong": {"exit_code": 1, "passed": False},
        "crashed": {"exit_code": -11, "error": "ended with -11"},
        "timeout": {"exit_code": 124, "error": "stopped after 3 s"},
        "failed": {"exit_code": 3, "error": "not supported"},
    }
    assert {status: measure.status_of(row) for status, row in rows.items()} == {
        status: status for status in rows
    }
    assert measure.status_of({"exit_code": 1, "error": "ValueError"}) == "crashed"
    assert measure.failed("ops/a", {"exit_code": 1, "error": "E"}).status == "crashed"


def test_compiling_is_timed_again_where_it_seems_slower() -> None:
    asked = []

    def again() -> list[dict[str, object]]:
        asked.append(1)
        return [{"compile_seconds": 4.2}, {"compile_seconds": 3.9}]

    rows = [{"compile_seconds": 9.0}, {"compile_seconds": 4.0}]
    sides.steady(rows, again)
    assert [row["compile_seconds"] for row in rows] == [4.2, 3.9]
    sides.steady(rows, again)
    sides.steady([{"exit_code": 1}], again)
    assert len(asked) == 1


def test_conformance_counts_and_names_what_should_pass() -> None:
    rows = [
        {"suite": "node", "name": "test_add", "status": "passed", "reason": ""},
        {"suite": "node", "name": "test_new", "status": "wrong", "reason": "off"},
        {"suite": "node", "name": "test_string_concat", "status": "refused", "reason": "no"},
    ]
    counts, *bad = measure.conformance_results(rows)
    assert (counts.figures["passed"], counts.figures["tests"]) == (1.0, 3.0)
    assert [each.name for each in bad] == ["conformance/node/test_new"]
    assert bad[0].status == "wrong"


@pytest.mark.parametrize("bad", range(8))
def test_bisection_finds_every_commit(bad: int) -> None:
    line = [str(k) for k in range(8)]
    asked: list[str] = []

    def is_bad(commit: str) -> bool:
        asked.append(commit)
        return int(commit) >= bad

    assert bisect.first_bad(line, is_bad) == bisect.Found(str(bad))
    assert len(asked) <= 3


def test_bisection_goes_around_what_cannot_be_judged() -> None:
    line = [str(k) for k in range(8)]
    verdicts = [False, False, None, None, True, True, True, True]
    assert bisect.first_bad(line, lambda c: verdicts[int(c)]) == bisect.Found("4", ("2", "3"))
    assert bisect.first_bad(line, lambda c: None).bad == "7"
    assert len(bisect.first_bad(line, lambda c: None).untold) == 7


@pytest.mark.parametrize(
    ("kind", "what"),
    [("slower", "gemm"), ("slower", "unknown"), ("larger", "library_bytes"), ("failed", "crashed")],
)
def test_a_bisection_asks_what_the_alarm_is_about(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, kind: str, what: str
) -> None:
    """Commit 5 of 8 makes gemm a tenth slower, the library larger and the compiler crash."""
    probe = bisect._Probe(
        Case("ops", "gemm/64x64x64"),
        Alarm("", kind, what, ""),
        tmp_path,
        None,
        sides.Settings(tmp_path, None, 0, 0),
    )  # type: ignore[arg-type]
    at = {"commit": 0}

    def build(self: object, commit: str) -> dict[str, object]:
        at["commit"] = int(commit)
        (tmp_path / "ours.so").write_text(commit)
        broken = kind == "failed" and int(commit) >= 5
        return {"exit_code": -11 * broken, "library_bytes": 100 + 50 * (int(commit) >= 5)}

    def logs(self: object) -> dict[str, list[float]]:
        slow = 0.1 * (at["commit"] >= 5)
        values = list(np.random.default_rng(at["commit"]).normal(slow, 0.01, 25))
        return {"run": values, "gemm": values}

    monkeypatch.setattr(bisect._Probe, "_build", build)
    monkeypatch.setattr(bisect._Probe, "_logs", logs)
    monkeypatch.setattr(bisect, "drawn", lambda *_: {})
    monkeypatch.setattr(bisect, "check", lambda *_: {"exit_code": 0})
    probe.begin("0", "7")
    line = [str(k) for k in range(1, 8)]
    assert bisect.first_bad(line, probe.is_bad) == bisect.Found("5")


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A repository of three commits: the tests may run where ours has no history."""
    clone, who = tmp_path / "clone", ("-c", "user.name=t", "-c", "user.email=t@t")
    subprocess.run(["git", "init", "-q", str(clone)], check=True)
    for text in "abc":
        (clone / "file").write_text(text)
        commits.git("add", "file", root=clone)
        commits.git(*who, "commit", "-qm", f"Write {text}", root=clone)
    return clone


def test_commits_are_checked_out_and_taken_away(clone: Path) -> None:
    line = commits.between("HEAD~2", "HEAD", clone)
    assert [commits.subject(c, clone).partition(" ")[2] for c in line] == ["Write b", "Write c"]
    assert commits.is_clean(clone)
    with commits.checkouts(clone) as others:
        first = others.of(commits.commit_of("HEAD~2", clone))
        assert (first / "file").read_text() == "a"
        assert others.of(commits.commit_of("HEAD~2", clone)) == first
    assert len(commits.git("worktree", "list", root=clone).splitlines()) == 1
    with pytest.raises(commits.UnknownCommit):
        commits.commit_of("nonsense", clone)


def test_a_case_from_drawing_to_its_figures(tmp_path: Path) -> None:
    """One compile, no turns; then a library that computes something else is wrong."""
    settings = sides.Settings(commits.ROOT, None, 0.0, 200.0)
    case = Case("ops", "softmax/1x1000")
    with Ahead(settings) as ahead:
        result, base = measure.measured(case, ahead.take(case, None), settings)
    assert (result.status, result.detail, base) == ("passed", "", {})
    assert set(result.figures) == {
        *("compile_seconds", "compiler_bytes", "library_bytes", "peak_bytes", "max_abs")
    }
    folder = tmp_path / "case"
    case = Case("ops", "gelu/1x3072")
    assert sides.drawn(case, folder, 100)["exit_code"] == 0
    model = onnx.load(folder / "model.onnx")
    whole = model.SerializeToString()
    (half,) = (k for k in model.graph.initializer if onnx.numpy_helper.to_array(k) == 0.5)
    half.CopyFrom(onnx.numpy_helper.from_array(np.array(0.51, np.float32), half.name))
    onnx.save(model, folder / "model.onnx")
    request = sides.request(case, folder, "ours", settings)
    assert commits.build(commits.ROOT, request, 100)["exit_code"] == 0
    (folder / "model.onnx").write_bytes(whole)
    measure.checked(wrong := Result(case.name, "passed"), folder, settings)
    assert wrong.status == "wrong"
    assert "elements differ" in wrong.detail


def test_a_checkout_that_cannot_compile_says_why(tmp_path: Path) -> None:
    request = {"model": "none.onnx", "library": str(tmp_path / "a.so"), "target": "llvm"}
    row = commits.build(commits.ROOT, {**request, "dims": None}, 100)
    assert row["exit_code"] == 2
    assert "none.onnx" in row["error"]


def test_the_other_side_needs_only_the_public_interface() -> None:
    text = Path(build_side.__file__).read_text()
    imports = re.findall(r"^(?:import|from) (\S+)", text, re.MULTILINE)
    assert set(imports) <= {"json", "resource", "sys", "time", "pathlib", "tvmext"}


def test_inputs_lie_elsewhere_each_time() -> None:
    draw = np.random.default_rng(0)
    array = np.arange(12, dtype=np.float32).reshape(3, 4)
    copies = [placed({"x": array, "n": np.array(3)}, draw) for _ in range(8)]
    assert all((copy["x"] == array).all() and copy["n"] == 3 for copy in copies)
    assert len({copy["x"].ctypes.data % 4096 for copy in copies}) > 2
    assert all(copy["x"].ctypes.data % 64 == 0 for copy in copies)


def test_families_that_both_sides_have_are_compared() -> None:
    ours = [{"gemm": 2e-4, "conv": 1e-4, "new": 1e-4, "tiny": 1e-7}] * 3
    base = [{"gemm": 1e-4, "conv": 1e-4, "old": 1e-4, "tiny": 1e-7}] * 3
    logs = family_logs(ours, base)
    assert list(logs) == ["gemm", "conv"]
    assert logs["gemm"] == pytest.approx([np.log(2)] * 3)


def test_the_command_line(
    tmp_path: Path, clone: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A night of results that are made up: exit codes, pages, and no time for the rest."""
    slow = compare([0.1 + x for x in np.linspace(-0.01, 0.01, 25)])
    times = iter([False, True])

    def measured(case: Case, *_: object) -> tuple[Result, dict[str, float]]:
        result = Result(case.name, "passed", figures={"us": 1.0}, comparisons={"run": slow})
        if next(times):
            result.again = {"run": [slow, slow]}
        return result, {}

    monkeypatch.setattr(commits, "ROOT", clone)
    monkeypatch.setattr(night, "measured", measured)
    monkeypatch.setattr(Ahead, "take", lambda *_: None)
    monkeypatch.setattr(Ahead, "close", lambda *_: None)
    monkeypatch.setattr(night, "targets", lambda: ["llvm"])
    options = ["--history", str(tmp_path), "--only", "ops/gemm/64x64x64", "--parts", "cases"]
    assert nightly.main([*options, "--base", "HEAD"]) == 0
    assert nightly.main([*options, "--minutes", "0.000001"]) == 0, "no time is no alarm"
    assert nightly.main(options) == 1
    assert "a run takes 10.5 % longer" in capsys.readouterr().out
    assert (tmp_path / "index.html").exists() and (tmp_path / "report.md").exists()
    assert nightly.main(["--history", str(tmp_path), "--report"]) == 1
    assert nightly.main([*options, "--base", "nonsense"]) == 2
    assert nightly.main(["--history", str(tmp_path), "--only", "nothing"]) == 2
    assert nightly.main(["--history", str(tmp_path), "--parts", "dessert"]) == 2
    assert nightly.main([*options, "--list"]) == 0


@pytest.mark.parametrize("number", commits.INTERRUPTS)
def test_an_interrupted_night_leaves_nothing_behind(
    history: History,
    tmp_path: Path,
    clone: Path,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
    number: int,
) -> None:
    """A signal comes while both sides compile: no process, no worktree, no folder, no verdict."""
    others, pids = tmp_path / "others", tmp_path / "pids"
    others.mkdir()
    pids.mkdir()
    usual = Path(tempfile.gettempdir())
    compiler = f"""
import os, pathlib, tempfile, time
tempfile.mkdtemp(prefix={tmp_path.name!r})
pathlib.Path({str(pids)!r}, str(os.getpid())).touch()
time.sleep(60)
"""
    (clone / "tvmext.py").write_text(compiler)
    commits.git("add", "tvmext.py", root=clone)
    commits.git("-c", "user.name=t", "-c", "user.email=t@t", "commit", "-qm", "Wait", root=clone)
    monkeypatch.setattr(tempfile, "tempdir", str(others))
    monkeypatch.setattr(commits, "ROOT", clone)
    monkeypatch.setattr(night, "targets", lambda: ["llvm"])
    monkeypatch.setattr(night, "device", lambda _: DEVICE)
    monkeypatch.setattr(night, "planned_base", lambda *_: commits.commit_of("HEAD", clone))

    def interrupt() -> None:
        while len(list(pids.iterdir())) < 2:
            time.sleep(0.05)
        os.kill(os.getpid(), number)

    usual_handler = signal.signal(number, signal.SIG_DFL)  # in the background some ignore SIGINT
    request.addfinalizer(lambda: signal.signal(number, usual_handler))
    threading.Thread(target=interrupt, daemon=True).start()
    handlers = [signal.getsignal(each) for each in commits.INTERRUPTS]
    with pytest.raises(SystemExit, match=str(128 + number)):
        nightly.main(["--history", str(history.path.parent), "--quick", "--parts", "cases"])
    assert [signal.getsignal(each) for each in commits.INTERRUPTS] == handlers
    assert not [pid.name for pid in pids.iterdir() if Path("/proc", pid.name).exists()]
    assert len(commits.git("worktree", "list", root=clone).splitlines()) == 1
    assert list(others.iterdir()) == []
    assert not list(usual.glob(f"{tmp_path.name}*"))
    assert history.runs(DEVICE)[-1][1].verdict == "unfinished"
    assert history.last_good(DEVICE) == "b" * 40


def test_a_module_that_prints_no_json_is_a_row() -> None:
    row = run_module(["tools.nightly.case", "draw", "--folder", "/nowhere/at/all"], 60)
    assert row["exit_code"] and row["error"]
    assert json.dumps(row)
    nothing = run_module(["tools.nightly.case", "--help"], 60, under=["true"])
    assert nothing == {"exit_code": 0, "error": "ended with 0"}
