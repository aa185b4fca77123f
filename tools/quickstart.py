"""Compile, inspect, run and verify one real network, showing each command.

    python tools/quickstart.py

The network is MobileNetV2 as torch exports it; its weights are drawn on the spot, the same on every
machine (tests/zoo/README.md). Everything lands in ``build/quickstart``. Needs the ``verify`` extra.
"""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
ZOO = ROOT / "tests" / "zoo"
NETWORK = "mobilenet_v2.dynamo.dyn.onnx"

COMMANDS = (
    "tvmext inspect mobilenet.onnx",
    "tvmext compile mobilenet.onnx -o mobilenet.so",
    "tvmext run mobilenet.so --dim batch=2 -o outputs.npz --print-time --print-top 3",
    "tvmext verify mobilenet.onnx mobilenet.so --dim batch=1,3",
)


def main() -> int:
    """Run `COMMANDS` one after the other; the exit code of the first that fails, else 0."""
    folder = ROOT / "build" / "quickstart"
    folder.mkdir(parents=True, exist_ok=True)
    make_network(folder / "mobilenet.onnx")
    for command in COMMANDS:
        print(f"\n$ {command}", flush=True)
        arguments = [sys.executable, "-m", *shlex.split(command)]
        if code := subprocess.run(arguments, cwd=folder, check=False).returncode:
            return code
    print(f"\nThe model, the library and the outputs are in {folder}")
    return 0


def make_network(path: Path) -> None:
    """Write the network with its weights to `path`."""
    sys.path.insert(0, str(ZOO))
    import light

    light.save(light.load(ZOO / NETWORK), path)


if __name__ == "__main__":
    sys.exit(main())
