"""Where the packages lie: the rooms are top-level folders and install below ``tvmext``.

``tvmext/{frontends,passes,schedules}`` are relative links to them, for work in the checkout; a
wheel must not depend on links, so the folders are named here. The rest is in pyproject.toml.
"""

from pathlib import Path

from setuptools import setup

ROOMS = ("frontends", "passes", "schedules")


def packages(folder: str, name: str) -> dict[str, str]:
    """{package name: folder} for a folder and the packages inside it, links left out."""
    found = {name: folder}
    for init in sorted(Path(folder).glob("*/__init__.py")):
        if not init.parent.is_symlink():
            found |= packages(f"{folder}/{init.parent.name}", f"{name}.{init.parent.name}")
    return found


package_dir = packages("tvmext", "tvmext")
for room in ROOMS:
    package_dir |= packages(room, f"tvmext.{room}")

setup(packages=sorted(package_dir), package_dir=package_dir)
