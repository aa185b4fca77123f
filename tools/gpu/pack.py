"""The project and what its checks need, as one small archive for a GPU host without network.

python -m tools.gpu pack gpu-host.tar.xz
# there:  tar xf gpu-host.tar.xz; PYTHONPATH=tvmpkg:tvmext python -m tools.gpu all
"""

from __future__ import annotations

import argparse
import io
import subprocess
import tarfile
from importlib.metadata import distribution
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("pytest", "pluggy", "iniconfig", "packaging", "pygments", "click")
"""Written in Python alone: they run on any host. In place of hypothesis, which is not, drawn.py."""
FOLDER = "tvmext"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("output", type=Path, help="the archive to write")


def main(args: argparse.Namespace) -> int:
    """Write the archive, with the files that git knows."""
    pack(args.output)
    print(f"{args.output}: {args.output.stat().st_size / 1e6:.1f} MB")
    return 0


def pack(output: Path) -> None:
    """Write the archive; links stay links."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True)
    with tarfile.open(output, "w:xz") as archive:
        for name in listed.stdout.decode().split("\0"):
            if name and (ROOT / name).exists():
                archive.add(ROOT / name, f"{FOLDER}/{name}", recursive=False)
        for package in PACKAGES:
            for file in distribution(package).files or ():
                if file.suffix == ".py" and ".." not in file.parts:
                    archive.add(file.locate(), f"{FOLDER}/{file}")
        stand_in = (Path(__file__).parent / "drawn.py").read_bytes()
        entry = tarfile.TarInfo(f"{FOLDER}/hypothesis.py")
        entry.size = len(stand_in)
        archive.addfile(entry, io.BytesIO(stand_in))
