"""Export networks with random weights for a check of the frontends.

    python -m tools.networks FOLDER 'bert*'     # needs torch, torchvision and transformers

Small configurations of real architectures: the operators and the shape arithmetic are those of the
network, the widths are not. What each became is in docs/networks.md.
"""

from __future__ import annotations

import argparse
import fnmatch
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tools.networks")
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="where the networks are")
    parser.add_argument("pattern", nargs="?", default="*", help="some of them, as 'bert*'")
    return parser.parse_args(arguments)


def main() -> int:
    args = parse()
    folder, pattern = args.folder, args.pattern
    from .export import EXPORTS, export

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
