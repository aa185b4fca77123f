"""Replay: what is the same has the same name, and a difference is told where it is."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import tvmext
from tests.cli import networks
from tools.replay import __main__ as replay
from tools.replay import snapshot

HEADER = "# from tvm.script import ir as I\n\n@I.ir_module\nclass Module:\n"
KERNEL = "    @T.prim_func(s_tir=True)\n    def {name}(x: T.handle):\n        T.evaluate({value})\n"
PROGRAM = (
    "@R.function\ndef main(x):\n    a = R.call_tir(cls.{first})\n    b = R.call_tir(cls.{last})\n"
)


def side(
    first: tuple[str, int], last: tuple[str, int], rows: int = 6, price: float = 1e-6
) -> snapshot.Snapshot:
    """Two kernels, (name, what it computes) each, and the rows of the last one's decision."""
    pairs = (first, last)
    code = HEADER + "\n".join(KERNEL.format(name=name, value=value) for name, value in pairs)
    decisions = {last[0]: {"rule": "gemm", "decision": {"rows": rows}, "seconds": price}}
    return snapshot.snapshot(code, PROGRAM.format(first=first[0], last=last[0]), decisions)


def test_numbers_do_not_matter() -> None:
    old, new = side(("relu", 1), ("matmul3", 2)), side(("relu1", 1), ("matmul", 2))
    assert list(snapshot.differences(old, new)) == []
    assert "cls.matmul@" in new.program and "cls.relu@" in new.program


def test_prices_do_not_matter() -> None:
    old, new = side(("relu", 1), ("matmul", 2)), side(("relu", 1), ("matmul", 2), price=2e-6)
    assert list(snapshot.differences(old, new)) == []


def test_a_kernel_that_comes_twice_counts_once() -> None:
    assert len(side(("relu", 1), ("relu1", 1)).kernels) == 2, "one has a decision"
    assert len({k.words for k in side(("relu", 1), ("relu1", 1)).kernels}) == 1


def test_another_decision_is_told() -> None:
    old, new = side(("relu", 1), ("matmul", 2), rows=6), side(("relu", 1), ("matmul", 2), rows=8)
    lines = list(snapshot.differences(old, new))
    assert lines[0].startswith("kernel matmul@") and " -> matmul@" in lines[0]
    assert '-  "rows": 6' in lines and '+  "rows": 8' in lines
    assert not any(line.startswith(("+    def", "-    def")) for line in lines)


def test_other_code_is_told() -> None:
    lines = list(snapshot.differences(side(("relu", 1), ("add", 2)), side(("relu", 1), ("add", 3))))
    assert "-        T.evaluate(2)" in lines and "+        T.evaluate(3)" in lines


def test_kernels_come_and_go() -> None:
    old, new = side(("relu", 1), ("add", 2)), side(("relu", 1), ("matmul", 2))
    lines = list(snapshot.differences(old, new))
    assert any(line.startswith("kernel add@") and line.endswith("is gone") for line in lines)
    assert any(line.startswith("kernel matmul@") and " is new: " in line for line in lines)
    assert snapshot.decided(side(("a", 1), ("b", 2)), old) == {}


def test_a_compilation_is_the_same_twice_and_not_with_another_option(tmp_path: Path) -> None:
    found = []
    for number, level in enumerate((3, 3, 0)):
        prefix = tmp_path / str(number)
        options = tvmext.Options(dump_code=("relax", "tir"), opt_level=level)
        made = tvmext.compile(networks.linear(), options=options, dump_prefix=prefix)
        made.save(tmp_path / f"{number}.so")
        found.append(snapshot.read(prefix, tmp_path / f"{number}.so"))
    assert json.loads(found[0].kernels[0].decision)["rule"] == "gemm"
    assert list(snapshot.differences(found[0], found[1])) == []
    assert list(snapshot.differences(found[0], found[2])) != []


def test_mistakes_in_the_call(capsys: pytest.CaptureFixture[str]) -> None:
    assert replay.main(["HEAD", "--only", "nothing"]) == 2
    assert replay.main(["no-such-commit", "--only", "zoo/unet.legacy.dyn static"]) == 2
    assert "no such commit" in capsys.readouterr().err
