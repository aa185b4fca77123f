"""Nights that are made up, as a history keeps them."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tools.nightly.history import History, Result, Run
from tools.nightly.judge import Alarm
from tools.nightly.stats import compare

DEVICE = "AMD EPYC, 2 cores"


def run(commit: str, verdict: str = "good", base: str = "") -> Run:
    return Run(DEVICE, commit, f"{commit[:7]} Do it", base, "2026-11-21 03:00:00", 600, {}, verdict)


def kept(history: History, run: Run, results: list[Result], alarms: list[Alarm]) -> None:
    number = history.begin(run)
    for result in results:
        history.keep(number, result)
    history.end(number, run.seconds, alarms)


def three_nights(folder: Path) -> History:
    """Three nights; in the last one a family is slower and a network crashes."""
    made = History(folder)
    slow = compare([0.1 + x for x in np.linspace(-0.01, 0.01, 25)])
    even = compare(list(np.linspace(-0.01, 0.01, 25)))
    figures = {"us": 70.0, "library_bytes": 37000.0, "against_onnxruntime": 1.5, "us:gemm": 60.0}
    figures |= {"least_against_onnxruntime": 1.5, "compile_seconds": 2.0, "planned_bytes": 4096.0}
    for number, commit in enumerate("ab"):
        good = Result("ops/gemm/64x64x64", "passed", figures=figures, comparisons={"run": even})
        net = Result("zoo/unet static", "passed", figures=figures | {"us": 80.0 + number})
        kept(made, run(commit * 40), [good, net], [])
    bad = Result("ops/gemm/64x64x64", "passed", figures=figures, comparisons={"run": slow})
    crash = Result("zoo/unet static", "crashed", "ended with -11")
    idle = Result("zoo/bert <b> static", "left", "no time")
    found = [
        Alarm("ops/gemm/64x64x64", "slower", "gemm", "10 % longer", "ccc1234 Do it"),
        Alarm("zoo/unet static", "failed", "crashed", "ended with -11"),
    ]
    kept(made, run("c" * 40, "bad", "b" * 40), [bad, crash, idle], found)
    return made
