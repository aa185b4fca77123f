"""One case in a process of its own: ``python -m tools.nightly.case draw|check``.

`draw` writes a model and inputs into --folder: model.onnx, inputs-0.npz and so on, and case.json
with the dims to compile for. Libraries come from elsewhere (commits.py). `check` compares ours.so
there with ONNX Runtime, notes the memory of a run, and lets it take turns with base.so. Both print
one JSON object; errors end them like `tools.zoo.case`.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from ..bench.cases import named
from ..zoo.case import bound_dims, drawn
from ..zoo.runner import answer

OURS, BASE, RIVAL = "ours", "base", "onnxruntime"


def draw(part: str, model: str, mode: str, folder: Path) -> dict[str, Any]:
    """Write the model, its inputs and its dims; returns the dims."""
    folder.mkdir(parents=True, exist_ok=True)
    if part == "ops":
        graph = named(model).graph()
        onnx.save(graph.model(), folder / "model.onnx")
        inputs: list[dict[str, Any]] = [dict(graph.inputs)]
        told: dict[str, Any] = {"dims": {}}
    else:
        with drawn(model, mode) as (path, inputs, dims):
            usual = bound_dims(onnx.load(path, load_external_data=False), inputs[0])
            for file in path.parent.iterdir():
                shutil.move(file, folder / file.name)
        free = {name: (0, size, None) for name, size in usual.items()}
        told = {"dims": dims, "explain": free if dims is None else dims}
    for number, arrays in enumerate(inputs):
        np.savez(folder / f"inputs-{number}.npz", **arrays)
    (folder / "case.json").write_text(json.dumps(told))
    return told


def check(folder: Path, seconds: float, again: bool, verify: bool) -> dict[str, Any]:
    """Whether ours.so is right, the memory it takes, and how fast it is in turns with the others.

    `again` loads the libraries in the other order: what comes first has other memory. Keys are
    those of `tools.zoo.case.verified`, "peak_bytes", and those of `turns.turns`.
    """
    import tvmext

    from ..zoo.case import verified
    from .memory import peak_of
    from .turns import turns

    files = sorted(folder.glob("inputs-*.npz"))
    inputs = [dict(np.load(file)) for file in files]
    result: dict[str, Any] = {"passed": True}
    order = [OURS, BASE] if not again else [BASE, OURS]
    libraries: dict[str, Any] = {}
    for side in order:
        path = folder / f"{side}.so"
        if path.exists():
            with peak_of() as memory:
                libraries[side] = tvmext.load(path, num_threads=1)
                libraries[side].run(inputs[0])
            if side == OURS:
                result["peak_bytes"] = memory[0]
    if verify:
        result |= verified(folder / "model.onnx", libraries[OURS], inputs)
    if seconds and result["passed"]:
        result |= turns(folder / "model.onnx", libraries, inputs[0], seconds, rival=verify)
    return result


def main() -> int:
    """Print one JSON object; the exit code of what went wrong, else 0."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("what", choices=("draw", "check"))
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--case", nargs=3, metavar=("PART", "MODEL", "MODE"))
    parser.add_argument("--seconds", type=float, default=0.0, help="for turns; 0 for none")
    parser.add_argument("--again", action="store_true", help="the libraries in the other order")
    parser.add_argument("--core", type=int, help="to run on")
    parser.add_argument("--verify", action=argparse.BooleanOptionalAction, default=True)
    args = parser.parse_args()
    if args.core is not None:
        with suppress(OSError):  # a container may have taken it away since
            os.sched_setaffinity(0, {args.core})
    if args.what == "draw":
        return answer(lambda: draw(*args.case, args.folder))
    return answer(lambda: check(args.folder, args.seconds, args.again, args.verify))


if __name__ == "__main__":
    sys.exit(main())
