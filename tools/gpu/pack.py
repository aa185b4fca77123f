"""The project and what its checks need, as one small archive for a GPU host without network.

python -m tools.gpu pack gpu-host.tar.xz
# there:  tar xf gpu-host.tar.xz; PYTHONPATH=tvmpkg:tvmext python -m tools.gpu all
"""

from __future__ import annotations

import argparse
import io
import os
import tarfile
from collections.abc import Iterator
from importlib.metadata import distribution
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("pytest", "pluggy", "iniconfig", "packaging", "pygments", "click")
"""Written in Python alone: they run on any host. In place of hypothesis, which is not, drawn.py."""
FOLDER = "tvmext"
MEASUREMENTS = ROOT / "tools/collect/data"
"""Of CPUs: a third of the archive, and a GPU host has no use for them."""
SOURCES = ("tvmext", "passes", "schedules", "frontends", "tests", "tools", "pyproject.toml")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("output", type=Path, help="the archive to write")


def main(args: argparse.Namespace) -> int:
    """Write the archive."""
    pack(args.output)
    print(f"{args.output}: {args.output.stat().st_size / 1e6:.1f} MB")
    return 0


def pack(output: Path) -> None:
    """Write the archive; links stay links."""
    with tarfile.open(output, "w:xz") as archive:
        for path in _sources():
            archive.add(path, f"{FOLDER}/{path.relative_to(ROOT)}", recursive=False)
        for package in PACKAGES:
            for file in distribution(package).files or ():
                if file.suffix == ".py" and ".." not in file.parts:
                    archive.add(file.locate(), f"{FOLDER}/{file}")
        stand_in = (Path(__file__).parent / "drawn.py").read_bytes()
        entry = tarfile.TarInfo(f"{FOLDER}/hypothesis.py")
        entry.size = len(stand_in)
        archive.addfile(entry, io.BytesIO(stand_in))


def _sources() -> Iterator[Path]:
    """Every file of the project that its checks need, and the links between its folders."""
    for name in SOURCES:
        if (ROOT / name).is_file():
            yield ROOT / name
        for folder, inner, files in os.walk(ROOT / name):
            yield from (Path(folder, each) for each in inner if Path(folder, each).is_symlink())
            left = ("__pycache__", MEASUREMENTS.name if Path(folder) == MEASUREMENTS.parent else "")
            inner[:] = [each for each in inner if each not in left and each[0] != "."]
            yield from (Path(folder, each) for each in files if not each.endswith(".pyc"))
