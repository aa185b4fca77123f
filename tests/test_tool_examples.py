"""Every ``python -m tools...`` that is documented (pages, docstrings of the tools, workflows).

Most take minutes to hours: they are parsed, by the tool's own parser, and the cases, networks and
files that they name have to be there. What ends at once is run: `RUN`, and tools.reference, whose
page is compared in test_examples.py.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator, Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

import pytest

from tests.examples import ROOT, Example, tool_examples
from tests.tools.nights import DEVICE, three_nights
from tools.bench import cases as bench_cases
from tools.gpu import bench as gpu_bench
from tools.nightly import cases, night
from tools.replay import __main__ as replay
from tools.zoo.case import networks, wanted

RUN = {
    "python -m tools.nightly --history ~/nights --report": (1, "something became worse"),
    "python -m tools.collect pack build/data -o tools/collect/data/cpu.parquet": (0, "0 measure"),
    "python -m tools.gpu report": (0, ""),
}
"""The exit code in a folder that has nights, but no measurements, and a part of the output."""

FOLDERS = ("docs", "schedules", "tests", "tools", "tvmext")


ALL = list(tool_examples())
ONCE = {" ".join(one.words): one for one in reversed(ALL)}
"""Each command where it stands first."""


def module_of(example: Example) -> ModuleType:
    """What ``python -m`` would run."""
    name = example.words[2]
    spec = find_spec(name)
    assert spec, f"there is no {name}"
    return import_module(f"{name}.__main__" if spec.submodule_search_locations else name)


def named(tool: str, args: argparse.Namespace) -> Iterator[Sequence[object]]:
    """What each pattern, and each name of a network, stands for; nothing if that is not there."""
    if tool in ("tools.zoo", "tools.movement", "tools.movement.plans"):
        yield wanted(args.only)
    elif tool == "tools.bench":
        yield from (bench_cases.select([pattern]) for pattern in getattr(args, "cases", ()))
        yield [name for name in networks() if name == getattr(args, "network", name)]
    elif tool == "tools.gpu" and hasattr(args, "only"):
        yield wanted(args.only) if "compile" in args.run.__module__ else gpu_bench.wanted(args.only)
    elif tool == "tools.nightly":
        yield cases.chosen(args.only, ["llvm"], args.quick)
    elif tool == "tools.replay":
        yield replay.chosen(args)


def test_examples_are_found() -> None:
    places = {one.place for one in ALL}
    assert {"bench.md", "baseline.md", "nightly.yml", "tools/collect/gpu.py"} <= places
    assert set(RUN) <= set(ONCE)


@pytest.mark.parametrize("example", ONCE.values(), ids=str)
def test_examples_are_understood(example: Example) -> None:
    module, words = module_of(example), example.words[3:]
    if not hasattr(module, "parse"):
        assert not words, f"{example.words[2]} takes no arguments"
        return
    args = module.parse(words)
    assert all(named(example.words[2], args))
    for word in words:
        if word.split("/")[0] in FOLDERS:
            assert (ROOT / word).exists(), word


@pytest.mark.parametrize("text", RUN)
def test_short_ones_run(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, said = RUN[text]
    three_nights(tmp_path / "nights")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(night, "device", lambda _: DEVICE)
    monkeypatch.setattr(sys, "argv", ["tool", *map(os.path.expanduser, ONCE[text].words[3:])])
    assert module_of(ONCE[text]).main() == code
    assert said in capsys.readouterr().out
