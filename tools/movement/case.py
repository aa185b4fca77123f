"""One network of the zoo: ``python -m tools.movement.case explain|compile|time NETWORK MODE``.

`explain` prints what `tvmext.explain` finds, without the list of operators. `compile` makes two
libraries in --folder, with virtual tensors and without; `time` lets them take turns. A dim that is
free counts with the size that the network is stored with. Errors end it like `tools.zoo.case`.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from ..zoo.case import MODES, bound_dims, drawn, networks
from ..zoo.runner import answer

SIDES = {"on": "latency", "off": "off"}
"""The option `virtual_tensors` of either library."""


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
    import tvmext

    from ..zoo.sides import compile_sides

    sides = {name: tvmext.Options(virtual_tensors=choice) for name, choice in SIDES.items()}
    found = compile_sides(network, mode, folder, sides)
    return {"compile_seconds": found["compile_seconds"]}


def on_and_off(folder: Path, seconds: float) -> dict[str, Any]:
    """Both libraries in turns (tools/zoo/sides.py)."""
    from ..zoo.sides import timed

    return timed(folder, "on", "off", seconds)


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
    return answer(lambda: on_and_off(args.folder, args.seconds))


if __name__ == "__main__":
    sys.exit(main())
