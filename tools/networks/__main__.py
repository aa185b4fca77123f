"""Export networks with random weights for a check of the frontends.

    python -m tools.networks FOLDER [PATTERN]     # needs torch, torchvision and transformers

Small configurations of real architectures: the operators and the shape arithmetic are those of the
network, the widths are not. What each became is in docs/networks.md.
"""

from __future__ import annotations

import fnmatch
import sys
import traceback
from pathlib import Path

from .export import EXPORTS, export


def main() -> int:
    folder, pattern = Path(sys.argv[1]), sys.argv[2] if len(sys.argv) > 2 else "*"
    folder.mkdir(parents=True, exist_ok=True)
    failed = 0
    for name, exporter in EXPORTS:
        label = f"{name}.{exporter}"
        if fnmatch.fnmatch(label, pattern):
            try:
                export(name, exporter, folder / f"{label}.onnx")
                print(f"{label}: done", flush=True)
            except Exception as error:  # of any exporter; the others go on
                failed += 1
                traceback.print_exc(limit=-3)
                print(f"{label}: {type(error).__name__}", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
