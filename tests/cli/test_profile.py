"""``tvmext run --profile``: which nodes the time belongs to, and what the kernels had to do."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper

from tests.browser import needs_browser, seen
from tests.cli import networks
from tests.cli.conftest import Call
from tvmext.artifact import KernelCall
from tvmext.frontends.dims import evaluate, symbol
from tvmext.measure import profile
from tvmext.measure.groups import groups, time_text
from tvmext.measure.machine import DataSheet
from tvmext.measure.profile import Kernel, Row
from tvmext.measure.roofline import roofline
from tvmext.schedules.brief import brief


def test_kernels_nodes_and_work(tvmext: Call, tiny_library: Path, tmp_path: Path) -> None:
    page, trace = tmp_path / "p.html", tmp_path / "p.json"
    files = ["--profile-html", page, "--profile-trace", trace]
    result = tvmext("run", tiny_library, "--dim", "batch=5", "--profile", "--json", *files)
    assert result.code == 0, result.err
    found = result.json["profile"]
    assert found["sizes"] == {"batch": 5}
    (kernel,) = found["kernels"]
    assert kernel["nodes"] == ["project", "activate"]
    assert kernel["flops"] == 5 * 3 * (2 * 4 + 1)
    assert kernel["bytes"] == 4 * (5 * 4 + 4 * 3 + 5 * 3)
    assert 0 < kernel["us"] <= found["total_us"] * 10
    assert kernel["roofline"] > 0
    assert 0 < kernel["predicted_us"] < 1000
    text = page.read_text()
    assert kernel["kernel"] in text and "project" in text and "<svg" in text
    assert kernel["rule"] and brief(kernel["decision"]) in text
    assert time_text(kernel["predicted_us"] / 1e6) in text
    assert not re.search(r"(src|href)=", text), "the page needs nothing from elsewhere"
    events = json.loads(trace.read_text())["traceEvents"]
    (event,) = [e for e in events if e.get("cat") == "kernel"]
    assert event["args"]["nodes"] == ["project", "activate"]
    assert any(e.get("cat") == "builtin" for e in events)


@needs_browser
def test_the_page_fits_screens(tvmext: Call, tiny_library: Path, tmp_path: Path) -> None:
    """Nothing but the plot and the table scrolls sideways."""
    page = tmp_path / "p.html"
    assert tvmext("run", tiny_library, "--dim", "batch=5", "--profile-html", page).code == 0
    for shown in seen(page.read_text(), ".roofline, #calls", tmp_path):
        assert shown.width <= shown.screen and not shown.cut
        assert len(shown.parts) == 2 and min(shown.parts) > 300


def test_the_table(tvmext: Call, tiny_library: Path) -> None:
    result = tvmext("run", tiny_library, "--profile")
    assert result.code == 0, result.err
    assert "project, activate" in result.out
    assert "peak" in result.out


def test_a_file_that_cannot_be_written_is_told_first(tvmext: Call, tmp_path: Path) -> None:
    result = tvmext("run", tmp_path / "none.so", "--profile-html", tmp_path / "no" / "p.html")
    assert result.code == 2
    assert str(tmp_path / "no") in result.err


def test_a_gather_reads_the_rows_that_it_takes(tvmext: Call, tmp_path: Path) -> None:
    table = np.zeros((1000, 8), np.float32)
    model = networks.model(
        [helper.make_node("Gather", ["table", "x"], ["y"], name="take")],
        {},
        {"y": ["batch", 8]},
        {"table": table},
    )
    model.graph.input.append(helper.make_tensor_value_info("x", TensorProto.INT64, ["batch"]))
    path, library = tmp_path / "m.onnx", tmp_path / "m.so"
    path.write_bytes(model.SerializeToString())
    assert tvmext("compile", path, "-o", library).code == 0
    result = tvmext("run", library, "--dim", "batch=3", "--fill-mode", "zeros", "--profile-html",
                    tmp_path / "p.html", "--json")  # fmt: skip
    (kernel,) = result.json["profile"]["kernels"]
    assert kernel["bytes"] == 3 * 8 + 2 * (3 * 8 * 4)


def test_a_call_survives_json() -> None:
    batch = symbol("batch")
    call = KernelCall("k", ("a", "b"), 2 * batch * batch, None)
    again = KernelCall.from_json(json.loads(json.dumps(call.to_json())))
    assert again == call
    assert again.flops is not None and evaluate(again.flops, {"batch": 3}) == 18


def test_kernels_meet_their_calls_in_order_and_loops_begin_again() -> None:
    names = ["a", "tvmext_weight", "b", "a", "b", "c"]
    kernels = [Kernel(k, name, (), 1.0) for k, name in enumerate(names)]
    calls = [KernelCall(name, (node,), 1, 1) for name, node in (("a", "1"), ("b", "2"), ("c", "3"))]
    found = profile._calls_in_order(kernels, calls)
    assert [(kernel.position, call.nodes) for kernel, call in found] == [
        (0, ("1",)), (2, ("2",)), (3, ("1",)), (4, ("2",)), (5, ("3",)),
    ]  # fmt: skip


class Roof:
    """100 GFLOP/s and 10 GB/s."""

    peak = 1e11

    def bandwidth_at(self, size: float) -> float:
        return 1e10

    def roofline(self, flops: float, bytes_moved: float) -> float:
        return max(flops / self.peak, bytes_moved / 1e10)


def test_groups_and_plot() -> None:
    def row(name: str, seconds: float, flops: int | None) -> Row:
        share = None if flops is None else flops / 1e11 / seconds
        return Row(Kernel(0, name, (), seconds), "gemm", (name,), flops, 1000, share)

    small, large = row("small", 1e-6, 1000), row("<large>", 1e-3, 10**7)
    first, second = groups([small, large, large])
    assert (first.name, second.name) == ("<large>", "small")
    assert first.seconds == pytest.approx(2e-3)
    assert first.roofline == pytest.approx(0.1)
    assert first.predicted is None
    drawing = roofline(Roof(), [first, second])
    assert drawing.count("<circle") == 1, "a thousandth of the time has no dot"
    assert "&lt;large&gt;" in drawing
    unknown = groups([row("x", 1e-6, None)])
    assert unknown[0].roofline is None
    assert roofline(Roof(), unknown) == ""


def test_the_roof_of_a_gpu_is_its_data_sheet() -> None:
    from tvmext.arch import from_target

    arch = from_target({"kind": "cuda", "arch": "sm_80"})
    plain, matrix = DataSheet(arch, matrix=False), DataSheet(arch, matrix=True)
    assert plain.peak == pytest.approx(19.5e12, rel=0.02)  # NVIDIA A100 data sheet
    assert matrix.peak == pytest.approx(312e12, rel=0.02)
    assert plain.roofline(0, 1e9) == pytest.approx(1 / arch.dram_gb_s)
