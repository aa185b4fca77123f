"""The first pass that changes results: the search alone, and a wrong pass in a real compilation."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
from onnx import helper

from tests.cli import networks
from tests.cli.conftest import Call
from tvmext import api
from tvmext.build import compile_in_child
from tvmext.verification.passes import first_change

NAMES = [f"pass{k}" for k in range(1, 41)]


def test_every_culprit_is_found_in_few_compilations() -> None:
    for culprit in range(1, 41):
        found = first_change(NAMES, (), culprit.__le__)
        assert (found.passes, found.place) == ((f"pass{culprit}",), culprit)
        assert found.tried <= 8


def test_passes_that_are_never_left_out_are_not_named() -> None:
    needed = {"pass1", "pass20", "pass21", "pass40"}
    found = first_change(NAMES, needed, lambda count: count >= 22)
    assert found.passes == ("pass22",)


def test_what_does_not_compile_is_left_out() -> None:
    broken = {19, 20, 21}
    found = first_change(NAMES, (), lambda count: None if count in broken else count >= 21)
    assert found.passes == ("pass19", "pass20", "pass21", "pass22")


@pytest.mark.parametrize(("differs", "reason"), [(True, "already where"), (False, "compiled anew")])
def test_nobody_is_to_blame(differs: bool, reason: str) -> None:
    found = first_change(NAMES, (), lambda _: differs)
    assert not found.passes and reason in found.reason


def test_a_planted_pass_is_named(
    tvmext: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """FoldAffine, replaced by a pass that turns relu(x) to relu(-x), is found by the command."""
    child = partial(compile_in_child, entry="tests.cli.planted:compile_here")
    monkeypatch.setattr(api, "compile_in_child", child)
    path = tmp_path / "net.onnx"
    path.write_bytes(networks.linear(batch=3).SerializeToString())
    result = tvmext("verify", path, "--bisect-passes")
    assert result.code == 1
    assert "first pass that changes results: FoldAffine (pass " in result.out


@pytest.mark.slow
def test_a_planted_rule_is_named(
    tvmext: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The product is wrong; the softmaxes around it are right."""
    child = partial(compile_in_child, entry="tests.cli.planted:schedule_wrongly")
    monkeypatch.setattr(api, "compile_in_child", child)
    nodes = [
        helper.make_node("Softmax", ["x"], ["a"]),
        helper.make_node("MatMul", ["a", "w"], ["b"]),
        helper.make_node("Softmax", ["b"], ["y"]),
    ]
    net = networks.model(nodes, {"x": [5, 4]}, {"y": [5, 3]}, {"w": 9 * networks.WEIGHT})
    path = tmp_path / "net.onnx"
    path.write_bytes(net.SerializeToString())
    result = tvmext("verify", path, "--bisect-passes", "--json")
    assert result.code == 1
    found = result.json["first_pass"]
    assert (found["passes"], found["kernels"]) == (["ScheduleKernels"], {"matmul": "gemm"})
