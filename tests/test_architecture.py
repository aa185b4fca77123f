"""The shape of the house: which room imports from which, what is loaded when, how long files are.

The imports are read from the syntax trees, those inside functions and under TYPE_CHECKING included:
an arrow that runs against the walk of the data is a mistake wherever it stands.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
GROUND_FLOOR = ("errors", "options", "arch", "schedules.cost")
WALK_OF_THE_DATA = (
    "frontends",
    "passes",
    "schedules",
    "build",
    "artifact",
    "runtime",
    "verification",
    "model_file",
    "report",
    "measure",
    "reduction",
    "tuning",
    "opt",
    "api",
    "onnx_backend",
    "cli",
)
TOP_LEVEL_ROOMS = ("frontends", "passes", "schedules")
FOLDERS = ("tvmext", *TOP_LEVEL_ROOMS)
MAX_LINES = 400


@dataclass(frozen=True)
class Arrow:
    """`module` (dotted name, without "tvmext.") imports `target` in line `line`."""

    module: str
    target: str
    line: int


def test_rooms_import_only_against_the_walk_of_the_data() -> None:
    arrows = [arrow for path, name in modules() for arrow in arrows_of(path.read_text(), name)]
    assert len(arrows) > 20, "the imports were not found"
    assert [problem for arrow in arrows if (problem := why_wrong(arrow))] == []


@pytest.mark.parametrize(
    ("module", "source", "wrong"),
    [
        ("passes.pipeline", "from tvmext.schedules import select", True),
        ("frontends.onnx.load", "def f():\n    import tvmext.passes.fusion", True),
        ("schedules.rule", "from tvmext.passes import pipeline", False),
        ("schedules.rule", "from tvmext.arch import Arch", False),
        ("arch", "from .schedules import rule", True),
        ("arch", "from . import errors", False),
        ("passes.fusion", "from tvmext.schedules.cost import seconds", False),
        ("verification", "from .cli import main", True),
        ("cli.run", "from . import console", False),
    ],
)
def test_a_wrong_arrow_is_seen(module: str, source: str, wrong: bool) -> None:
    problems = [why_wrong(arrow) for arrow in arrows_of(source, module)]
    assert any(problems) is wrong


def test_rooms_are_imported_under_one_name() -> None:
    """A bare ``import passes`` would load every module of a room twice."""
    for path in python_files():
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.level == 0:
                names.append(node.module or "")
            bare = [name for name in names if name.split(".")[0] in TOP_LEVEL_ROOMS]
            assert not bare, f"{path.relative_to(ROOT)}: import tvmext.{bare[0]}"


def test_rooms_are_linked_into_the_package() -> None:
    for room in TOP_LEVEL_ROOMS:
        assert (ROOT / "tvmext" / room).resolve() == ROOT / room


@pytest.mark.parametrize(
    "statement",
    [
        "import tvmext",
        "import tvmext.options, tvmext.errors",
        "import tvmext.cli",
        "import sys; sys.argv = ['tvmext', '--help']\ntry: import tvmext.__main__\n"
        "except SystemExit as e: assert e.code == 0",
    ],
)
def test_nothing_heavy_is_imported_before_it_is_needed(statement: str) -> None:
    heavy = ("tvm", "tvm_ffi", "onnx", "onnxruntime", "numpy", "rich", "torch")
    check = (
        f"\nimport sys\nfound = [m for m in {heavy!r} if m in sys.modules]\nassert not found, found"
    )
    done = subprocess.run(
        [sys.executable, "-c", statement + check], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr


def test_files_are_short() -> None:
    lengths = {path: len(path.read_text().splitlines()) for path in python_files()}
    assert {str(p.relative_to(ROOT)): n for p, n in lengths.items() if n > MAX_LINES} == {}


def modules() -> Iterator[tuple[Path, str]]:
    """Every module of the package: its file, and its dotted name without "tvmext."."""
    for folder in FOLDERS:
        for path in walk(ROOT / folder):
            parts = path.relative_to(ROOT).with_suffix("").parts
            name = ".".join(parts[1:] if folder == "tvmext" else parts).removesuffix(".__init__")
            if name not in ("__init__", "__main__"):
                yield path, name + (".__init__" if path.name == "__init__.py" else "")


def python_files() -> Iterator[Path]:
    """Every Python file of the repository, vendored model descriptions left out."""
    for folder in (*FOLDERS, "tests", "tools"):
        yield from (path for path in walk(ROOT / folder) if "zoo" not in path.parts)
    yield ROOT / "setup.py"


def walk(folder: Path) -> Iterator[Path]:
    """The Python files below `folder`; links are not followed, so no file comes twice."""
    for path in sorted(folder.iterdir() if folder.is_dir() else ()):
        if path.is_dir() and not path.is_symlink() and not path.name.startswith("."):
            yield from walk(path)
        elif path.suffix == ".py":
            yield path


def arrows_of(source: str, name: str) -> Iterator[Arrow]:
    """The imports of `source`, the text of module `name`, that point into tvmext."""
    module = name.removesuffix(".__init__")
    package = module if name.endswith(".__init__") else module.rpartition(".")[0]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.startswith("tvmext."):
                    yield Arrow(module, alias.name.removeprefix("tvmext."), node.lineno)
        elif isinstance(node, ast.ImportFrom):
            base = _base(node, package)
            for alias in node.names if base is not None else ():
                yield Arrow(module, f"{base}.{alias.name}".lstrip("."), node.lineno)


def _base(node: ast.ImportFrom, package: str) -> str | None:
    """What ``from base import ...`` imports from, without "tvmext."; None if it is another's."""
    if node.level == 0:
        inside = (node.module or "").split(".")[0] == "tvmext"
        return (node.module or "").removeprefix("tvmext").lstrip(".") if inside else None
    parts = package.split(".") if package else []
    kept = parts[: len(parts) - (node.level - 1)]
    return ".".join([*kept, *([node.module] if node.module else [])])


def why_wrong(arrow: Arrow) -> str:
    """Empty if the arrow is allowed, else what is wrong with it."""
    source, target = room_of(arrow.module), room_of(arrow.target)
    if source == target or target in (None, "ground"):
        return ""
    text = f"{arrow.module}:{arrow.line} imports {arrow.target}"
    if source == "ground":
        return f"{text}: the ground floor imports from no room"
    if source is None:
        return f"{text}: '{arrow.module}' is in no room; name its room in this test"
    if WALK_OF_THE_DATA.index(source) < WALK_OF_THE_DATA.index(target):
        return f"{text}: '{target}' comes after '{source}'"
    return ""


def room_of(name: str) -> str | None:
    """The room of a module or of a name in it; None for what lies at the top, as __version__."""
    if any(name == ground or name.startswith(f"{ground}.") for ground in GROUND_FLOOR):
        return "ground"
    room = name.split(".")[0]
    return room if room in WALK_OF_THE_DATA else None
