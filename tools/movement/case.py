"""One network of the zoo: ``python -m tools.movement.case explain|compile|time NETWORK MODE``.

`explain` prints what `tvmext.explain` finds, without the list of operators. `compile` makes two
libraries in --folder, with virtual tensors and without; `time` lets them take turns. A dim that is
free counts with the size that the network is stored with. Errors end it like `tools.zoo.case`.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from pathlib import Path
from typing import Any

from ..zoo.case import MODES, bound_dims, drawn, networks
from ..zoo.runner import answer

SIDES = {"on": "latency", "off": "off"}
"""The option `virtual_tensors` of either library."""

TARGET = "llvm -num-cores=1"
"""What both are compiled for, as one thread runs them, whatever cores are free just then."""

COPIES = 4


def explain(network: str, mode: str) -> dict[str, Any]:
    """`Explanation.to_json`, less its operators."""
    import onnx

    import tvmext

    with drawn(network, mode) as (path, inputs, bound):
        usual = bound_dims(onnx.load(path, load_external_data=False), inputs[0])
        free = {name: (0, size, None) for name, size in usual.items()}
        found = tvmext.explain(path, dims=free if bound is None else bound).to_json()
    return {name: value for name, value in found.items() if name != "operators"}


def compile_both(network: str, mode: str, folder: Path) -> dict[str, Any]:
    """The libraries "on.so" and "off.so" and their inputs; the seconds that each took."""
    import time

    import numpy as np

    import tvmext

    folder.mkdir(parents=True, exist_ok=True)
    seconds = {}
    with drawn(network, mode) as (path, inputs, dims):
        np.savez(folder / "inputs.npz", **inputs[0])
        for name, choice in SIDES.items():
            started = time.monotonic()
            options = tvmext.Options(virtual_tensors=choice)
            tvmext.compile(path, TARGET, dims, options).save(folder / f"{name}.so")
            seconds[name] = time.monotonic() - started
    return {"compile_seconds": seconds}


def timed(folder: Path, seconds: float) -> dict[str, Any]:
    """One thread, both libraries in turns: `tvmext.measure.figures`, and "all_rounds".

    The latter is the median ratio of all rounds, disturbed ones as well. Several times, with copies
    of the libraries: weights are pages of the file, which lie where memory was free when it was
    written, and the same product of 7 MB took 1.24 ms in one copy and 1.48 ms in another.
    """
    from tvmext.measure.figures import figures

    taken = [turn for k in range(COPIES) for turn in rounds(folder, k, seconds / COPIES)]
    ratios = [turn["off"].seconds / turn["on"].seconds for turn in taken]
    return figures(taken, "on") | {"all_rounds": statistics.median(ratios)}


def rounds(folder: Path, number: int, seconds: float) -> list[Any]:
    """The samples that fresh copies of the libraries give, made in turns in either order."""
    import shutil
    from tempfile import TemporaryDirectory

    import numpy as np

    import tvmext
    from tvmext.measure.host import interruptions
    from tvmext.measure.machine import Machine
    from tvmext.measure.timing import measure

    inputs = dict(np.load(folder / "inputs.npz"))
    with TemporaryDirectory(dir=folder) as fresh:
        names = sorted(SIDES, reverse=number % 2 == 0)
        files = {name: shutil.copy(folder / f"{name}.so", fresh) for name in names}
        libraries = {name: tvmext.load(file, num_threads=1) for name, file in files.items()}
    calls = {name: lambda it=library: it.run(inputs) for name, library in libraries.items()}
    return measure(calls, Machine(1), interruptions(1), seconds=seconds)


def main() -> int:
    """Print one JSON object; the exit code of what went wrong, else 0."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("explain", "compile", "time"))
    parser.add_argument("network", choices=networks(), metavar="NETWORK")
    parser.add_argument("mode", choices=MODES)
    parser.add_argument("--folder", type=Path, metavar="FOLDER")
    parser.add_argument("--seconds", type=float, default=10, help="to time for")
    args = parser.parse_args()

    if args.what == "explain":
        return answer(lambda: explain(args.network, args.mode))
    if args.what == "compile":
        return answer(lambda: compile_both(args.network, args.mode, args.folder))
    return answer(lambda: timed(args.folder, args.seconds))


if __name__ == "__main__":
    sys.exit(main())
