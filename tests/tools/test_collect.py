"""The data set: what is drawn, built and measured, and that nothing is lost when it is killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from tools.collect import measure, workloads
from tools.collect.__main__ import main
from tools.collect.build import Unit, build, kernels, stratified
from tools.collect.gpu import Cuda
from tools.collect.journal import ONCE, SCHEMA, Journal, joined, latest
from tools.collect.measure import collect
from tvmext.arch import resolve
from tvmext.measure import turns
from tvmext.measure.turns import DeviceLost
from tvmext.schedules.cost.terms import FIELDS, VERSION, Terms

SPEC = {"kind": "gemm", "m": 24, "n": 40, "k": 30, "epilogue": "bias"}
TERMS = {name: field.default for name, field in FIELDS.items()}


class Stub:
    """A device on which candidate n takes n + 1 ms, each sample as `noise` says."""

    name = "stub"
    threads = 1

    def __init__(self, noise: Any = lambda: 1.0, sleep: float = 0.0) -> None:
        self.noise, self.sleep, self.calls = noise, sleep, 0

    def load(self, path: Path) -> str:
        return path.stem

    def array(self, shape: list[int], dtype: str) -> tuple[Any, ...]:
        return (*shape, dtype)

    def seconds(self, library: Any, symbol: str, arguments: list[Any], number: int) -> float:
        self.calls += 1
        time.sleep(self.sleep)
        return 1e-3 * (1 + int(symbol.rpartition("_")[2])) * self.noise()

    def undisturbed(self) -> bool:
        return True


def units(folder: Path, count: int, candidates: int = 3) -> None:
    """Descriptions of libraries that only a stub can load."""
    folder.mkdir(exist_ok=True)
    for number in range(count):
        items = [
            {"symbol": f"candidate_{n}", "rule": "gemm", "decision": {"tile": n}, "picked": n == 0}
            | {"terms": TERMS, "params": [[[2, 3], "float32"]]}
            for n in range(candidates)
        ]
        unit = Unit(f"unit{number}", {"kind": "gemm", "m": number}, {"cores": 1}, VERSION, items)
        (folder / f"{unit.name}.json").write_text(json.dumps(unit.__dict__))


def test_draws_are_the_same_for_a_seed_and_none_is_a_benchmark() -> None:
    drawn = workloads.draw(60, 3)
    assert drawn == workloads.draw(60, 3) != workloads.draw(60, 4)
    assert len({workloads.key(spec) for spec in drawn}) == 60
    assert {"gemm", "conv", "bmm"} <= {spec["kind"] for spec in drawn}
    assert not {workloads.key(spec) for spec in drawn} & workloads.forbidden()
    bench = {"kind": "gemm", "m": 128, "n": 768, "k": 768, "epilogue": "gelu"}
    assert workloads.key(bench) in workloads.forbidden()
    layer = {"kind": "conv", "batch": 1, "cin": 64, "cout": 64, "kernel": 3, "size": [56, 56]}
    assert workloads.key({**layer, "stride": 1, "groups": 1}) in workloads.forbidden()


def test_some_kinds_can_be_drawn_alone() -> None:
    thin = workloads.draw(40, 3, ["thin", "softmax"])
    products = [spec for spec in thin if spec["kind"] != "softmax"]
    assert 10 < len(products) < 30
    assert all(spec["m"] == 1 or spec["n"] <= 16 or spec["k"] <= 32 for spec in products)
    with pytest.raises(ValueError, match="no kind fat; there are gemm"):
        workloads.draw(1, 0, ["fat"])


def test_strata_hold_the_pick_and_the_cheapest() -> None:
    terms = Terms.of(cycles=np.arange(50.0, 0, -1))
    chosen = stratified(terms, 12, np.random.default_rng(0))
    assert len(set(chosen)) == 12 and chosen[0] == 0
    assert {49, 48, 47} < set(chosen)


def test_built_measured_and_resumed_on_this_machine(tmp_path: Path) -> None:
    arch = replace(resolve("llvm"), cores=1)
    unit = build(SPEC, arch, tmp_path / "units", most=3)
    assert [item["picked"] for item in unit.items] == [True, False, False]
    journal = Journal(tmp_path / "data")
    device = turns.Local()
    assert collect(tmp_path / "units", journal, device) == 3
    assert collect(tmp_path / "units", journal, device) == 0
    for row in journal.rows():
        assert set(SCHEMA.names) <= {*row, *ONCE}
        assert 1e-8 < row["least"] <= row["seconds"] < 1e-2
        assert (row["rows"], row["cols"], row["depth"]) == (24, 40, 30)


def test_disturbed_samples_do_not_count(tmp_path: Path) -> None:
    units(tmp_path / "units", 1)
    rng = np.random.default_rng(0)
    journal = Journal(tmp_path / "data")
    collect(tmp_path / "units", journal, Stub(lambda: 1 + 3.0 * (rng.random() < 0.3)))
    rows = sorted(journal.rows(), key=lambda row: row["decision"])
    assert [row["seconds"] for row in rows] == pytest.approx([1e-3, 2e-3, 3e-3])
    assert not any(row["noisy"] for row in rows)
    other = Journal(tmp_path / "other")
    growing = iter(range(10**6))
    wild = Stub(lambda: 1.1 ** next(growing))
    collect(tmp_path / "units", other, wild)
    assert all(row["noisy"] for row in other.rows())
    most = 3 * (2 + turns.ROUNDS + turns.MORE_ROUNDS)
    assert wild.calls == most, "outliers are measured again"


def test_rounds_are_brought_to_one_level() -> None:
    """A round half as fast as a whole, one sample that was alone, a candidate that left earlier."""
    usual = {"a": 1.0, "b": 2.0, "c": 3.0, "d": 4.0, "e": 5.0}
    samples = {name: [(t, True), (2 * t, False), (t, True)] for name, t in usual.items()}
    samples["b"][0] = (3.0, True)
    samples["e"] = samples["e"][:2]
    found = turns.levelled(samples)
    assert found["a"] == [(1.0, True), (1.0, False), (1.0, True)]
    assert found["b"] == [(3.0, True), (2.0, False), (2.0, True)]
    few = {name: samples[name] for name in "abc"}
    assert turns.levelled(few) == few


KILLED = """
import sys; from pathlib import Path
from tests.tools.test_collect import Stub, Journal, collect
folder = Path(sys.argv[1])
collect(folder / "units", Journal(folder / "data"), Stub(sleep=0.0005))
"""


def test_kill_loses_no_more_than_the_measurement_in_flight(tmp_path: Path) -> None:
    units(tmp_path / "units", 200)
    journal = tmp_path / "data" / "journal.jsonl"
    command = [sys.executable, "-c", KILLED, str(tmp_path)]
    for wanted in (5, 20):
        with subprocess.Popen(command, start_new_session=True) as process:
            end = time.monotonic() + 60
            while time.monotonic() < end:
                if journal.exists() and journal.read_bytes().count(b"\n") >= wanted:
                    break
                time.sleep(0.002)
            before = journal.read_bytes().count(b"\n")
            os.kill(process.pid, signal.SIGKILL)
        lines = journal.read_bytes().split(b"\n")
        assert len(lines) - 1 >= before >= wanted
        assert all(json.loads(line)["seconds"] > 0 for line in lines[:-1])
    found = Journal(tmp_path / "data")
    seen = found.keys()
    count = collect(tmp_path / "units", found, Stub())
    assert count == 600 - len(seen)
    assert len(found.keys()) == len(list(found.rows())) == 600


def test_a_torn_line_and_an_interrupted_pack(tmp_path: Path) -> None:
    units(tmp_path / "units", 2)
    journal = Journal(tmp_path / "data")
    collect(tmp_path / "units", journal, Stub())
    whole = journal.path.read_bytes()
    assert journal.pack() == 6 and journal.path.read_bytes() == b""
    # Killed after the Parquet file was there, before the journal was emptied, amid a line.
    journal.path.write_bytes(whole + whole[:50])
    again = Journal(tmp_path / "data")
    assert len(again.keys()) == 6
    assert again.pack(tmp_path / "all.parquet") == 6
    table = pq.read_table(tmp_path / "all.parquet")
    assert table.schema.equals(SCHEMA) and table.num_rows == 6
    assert collect(tmp_path / "units", again, Stub()) == 0


def test_sessions_are_packed_as_their_medians(tmp_path: Path) -> None:
    units(tmp_path / "units", 1, candidates=2)
    folders = []
    for number, slower in enumerate((1.0, 1.3, 1.1)):
        folders.append(tmp_path / str(number))
        journal = Journal(folders[-1])
        collect(tmp_path / "units", journal, Stub(lambda s=slower: s))
        journal.close()
    first = latest(Journal(folders[0]).rows())
    joint = joined(latest(Journal(folder).rows()) for folder in folders)
    assert sorted(row["seconds"] for row in joint) == pytest.approx([1.1e-3, 2.2e-3])
    assert {row["sessions"] for row in joint} == {3}
    assert [row["apart"] for row in joint] == pytest.approx([0, 0]), "slower as a whole"
    wild = {key: {**row, "noisy": True, "seconds": 9.0} for key, row in first.items()}
    assert max(row["seconds"] for row in joined([wild, first])) == pytest.approx(2e-3)
    output = tmp_path / "all.parquet"
    assert main(["pack", *map(str, folders), "-o", str(output)]) == 0
    assert pq.read_table(output)["sessions"].to_pylist() == [3, 3]


def test_sessions_are_apart_by_what_differs_from_candidate_to_candidate(tmp_path: Path) -> None:
    units(tmp_path / "units", 1, candidates=4)
    journal = Journal(tmp_path / "data")
    collect(tmp_path / "units", journal, Stub())
    first = latest(journal.rows())
    late, *others = first
    second = {key: {**row, "seconds": 2 * row["seconds"]} for key, row in first.items()}
    second[late] = {**second[late], "seconds": 1.2 * second[late]["seconds"]}
    joint = {row["key"]: row for row in joined([first, second])}
    assert joint[late]["apart"] == pytest.approx(np.log(1.2))
    assert [joint[key]["apart"] for key in others] == pytest.approx([0] * 3)
    shares = [joint[key]["seconds"] / first[key]["seconds"] for key in (late, *others)]
    assert shares == pytest.approx([1.5] * 4), "the shorter of two, at the level of both"
    alone = {late: second[late]}
    assert [row["seconds"] for row in joined([alone])] == [second[late]["seconds"]]


def test_a_device_that_is_lost_is_not_lost_again(tmp_path: Path) -> None:
    class Dying(Stub):
        def seconds(self, library: Any, *rest: Any) -> float:
            if library == "unit1":
                raise DeviceLost("gone")
            return super().seconds(library, *rest)

    units(tmp_path / "units", 3)
    journal = Journal(tmp_path / "data")
    with pytest.raises(DeviceLost):
        collect(tmp_path / "units", journal, Dying())
    assert collect(tmp_path / "units", journal, Dying()) == 3
    assert len(journal.keys()) == 6


class StubGpu:
    """A GPU that calls take a millisecond on; after `calls` of them it is lost."""

    target = "cuda -arch=sm_80"

    def __init__(self, calls: int = 10**6) -> None:
        self.left = calls

    def describe(self) -> dict[str, Any]:
        return {"device": "A GPU", "arch": "sm_80"}

    def array(self, values: Any) -> Any:
        return values

    def seconds(self, call: Any) -> float:
        call()
        self.left -= 1
        return 1e-3

    def speed(self) -> float:
        return 1.0

    def alive(self) -> bool:
        return self.left > 0


class Functions:
    """A library, every function of which takes anything."""

    def __getitem__(self, name: str) -> Any:
        return lambda *_arguments: None


def test_candidates_for_a_gpu_are_measured_on_a_stub(tmp_path: Path) -> None:
    pytest.importorskip("cuda.bindings", reason="NVRTC compiles the kernels")
    spec = {"kind": "gemm", "m": 256, "n": 384, "k": 512, "epilogue": ""}
    arch = resolve("cuda -arch=sm_80")
    # In a process of its own: in this one the emulator may stand in for the GPU.
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        unit = pool.submit(build, spec, arch, tmp_path / "units", most=3).result()
    assert [item["rule"] for item in unit.items] == ["mma"] * 3
    assert all(item["terms"]["block_rows"] > 0 for item in unit.items)
    assert (tmp_path / "units" / f"{unit.name}.so").stat().st_size > 10_000
    journal = Journal(tmp_path / "data")
    device = Cuda(StubGpu(), lambda _path: Functions())  # type: ignore[arg-type]
    assert collect(tmp_path / "units", journal, device) == 3
    assert {row["device"] for row in journal.rows()} == {"A GPU"}
    lost = Cuda(StubGpu(4), lambda _path: Functions())  # type: ignore[arg-type]
    with pytest.raises(DeviceLost):
        collect(tmp_path / "units", Journal(tmp_path / "other"), lost)


def test_every_kind_of_workload_has_a_kernel_with_choices() -> None:
    arch = replace(resolve("llvm"), cores=1)
    small = {"rows": 20, "width": 100, "form": 0}
    conv = {"kind": "conv", "batch": 1, "cin": 8, "cout": 16, "kernel": 3, "size": [9, 9]}
    for spec, rule in (
        ({"kind": "bmm", "b": 2, "m": 5, "n": 32, "k": 7, "t": True}, "gemm"),
        ({**conv, "stride": 1, "groups": 1}, "conv"),
        ({**conv, "cout": 8, "stride": 2, "groups": 8}, "depthwise"),
        ({"kind": "softmax", **small}, "normalization"),
        ({"kind": "norm", **small}, "normalization"),
        ({"kind": "reduce", **small}, "reduction"),
        ({"kind": "map", **small}, "elementwise"),
    ):
        assert [found.rule.name for found in kernels(spec, arch)] == [rule], spec


@contextmanager
def cluster() -> Iterator[Any]:
    from distributed import Client, LocalCluster

    options = {"n_workers": 1, "threads_per_worker": 1, "processes": False}
    with (
        LocalCluster(**options, resources={"measure": 1}, dashboard_address=None) as local,
        Client(local) as client,
    ):
        yield client


def test_a_cluster_builds_and_measures(tmp_path: Path) -> None:
    from tools.collect.cluster import build_all, measure_all

    arch = replace(resolve("llvm"), cores=1)
    journal = Journal(tmp_path / "data")
    (tmp_path / "units").mkdir()
    bad = {"kind": "rose"}
    with cluster() as client:
        names = list(build_all(client, [SPEC, bad], arch, tmp_path / "units", most=2))
        assert sum(name.startswith("failed") for name in names) == 1
        assert len(list((tmp_path / "units").iterdir())) == 2
        assert measure_all(client, tmp_path / "units", journal) == 2
        assert measure_all(client, tmp_path / "units", journal) == 0


def test_a_device_behind_an_rpc_tracker(tmp_path: Path) -> None:
    from tvm import rpc
    from tvm.rpc.tracker import Tracker

    arch = replace(resolve("llvm"), cores=1)
    build(SPEC, arch, tmp_path / "units", most=2)
    tracker = Tracker(host="127.0.0.1", port=9190, port_end=9390, silent=True)
    server = rpc.Server(
        "127.0.0.1", key="board", tracker_addr=("127.0.0.1", tracker.port), silent=True
    )
    try:
        device = measure.Remote(f"127.0.0.1:{tracker.port}/board")
        assert device.name == "board"
        assert collect(tmp_path / "units", Journal(tmp_path / "data"), device) == 2
    finally:
        server.terminate()
        tracker.terminate()
