"""What a night measures, part by part: each gives results, and what goes wrong is one of them."""

from __future__ import annotations

import json
import shlex
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tvmext.arch import resolve, to_target

from ..conformance.__main__ import exclusions
from ..zoo.runner import Row, run_module
from . import commits
from .cases import Case
from .history import LEFT, PASSED, Result, plain
from .judge import beyond
from .stats import REPEATS, SUSPECT, compare

CASE = "tools.nightly.case"
BUILT = (
    *("compile_seconds", "compiler_bytes", "library_bytes"),
    *("planned_bytes", "kernels", "movement_left"),
)
STATUS = {0: PASSED, 1: "wrong", 3: "failed", 124: "timeout"}


@dataclass(frozen=True)
class Settings:
    """`base` is the checkout to compare with, None for none. `under` is a command that timed
    processes run under, `seconds` what one comparison may take, `limit` what one process may.
    `cpu` is this machine as a target: both sides have to see the same number of cores."""

    root: Path
    base: Path | None
    seconds: float
    limit: float
    under: str = ""
    cpu: Mapping[str, Any] = field(default_factory=lambda: to_target(resolve("llvm")))

    def target(self, case: Case) -> str | dict[str, Any]:
        """What a case is compiled for."""
        return dict(self.cpu) if case.target == "llvm" else case.target


def measured(case: Case, settings: Settings) -> tuple[Result, dict[str, float]]:
    """A case, and the figures of the base that were made on the way."""
    with TemporaryDirectory(prefix="tvmext-nightly-") as made:
        folder = Path(made)
        row = drawn(case, folder, settings.limit)
        if row["exit_code"]:
            return failed(case.name, row), {}
        built = sides(case, folder, settings)
        steady(built, lambda: sides(case, folder, settings))
        ours = built[0]
        if ours["exit_code"]:
            return failed(case.name, ours), {}
        result = Result(case.name, PASSED, figures=_numbers(ours, BUILT))
        base = _numbers(built[1], BUILT) if len(built) > 1 else {}
        checked(result, folder, settings)
        return result, base


def drawn(case: Case, folder: Path, limit: float) -> Row:
    """Write the model and the inputs of a case."""
    command = [CASE, "draw", "--folder", str(folder), "--case", case.part, case.model, case.mode]
    return run_module(command, limit)


def request(case: Case, folder: Path, side: str, settings: Settings) -> dict[str, Any]:
    """What a checkout is asked to compile (build_side.py)."""
    told = json.loads((folder / "case.json").read_text())
    paths = {"model": str(folder / "model.onnx"), "library": str(folder / f"{side}.so")}
    return {**told, **paths, "target": settings.target(case)}


def sides(case: Case, folder: Path, settings: Settings) -> list[Row]:
    """The rows of ours and, if there is one, of the base, compiled side by side."""
    wanted = [(settings.root, request(case, folder, "ours", settings))]
    if settings.base:
        wanted.append((settings.base, request(case, folder, "base", settings)))
    return commits.builds(wanted, settings.limit)


def steady(built: Sequence[Row], again: Callable[[], list[Row]]) -> None:
    """Where compiling seems slower, compile again: the least seconds of each side count."""
    name = "compile_seconds"
    for _ in range(REPEATS):
        ours, base = built[0], built[-1]
        if name not in ours or name not in base or not beyond(name, ours[name], base[name]):
            return
        for row, other in zip(built, again()):
            row[name] = min(row[name], other.get(name, row[name]))


def checked(result: Result, folder: Path, settings: Settings) -> None:
    """Verify, time, and repeat what looks slower; adds to `result` what came of it."""
    row = check(folder, settings)
    base = folder / "base.so"
    if row["exit_code"] not in (0, 1) and base.exists():  # whose fault is it?
        base.unlink()
        row, first = check(folder, settings), row
        result.detail = f"without the base: {first['error']}"
    if row["exit_code"]:
        result.status, result.detail = status_of(row), row.get("error") or row.get("detail", "")
        return
    took = row.get("sides", {}).get("ours")
    if took:
        result.figures |= {"us": took["min_us"], "median_us": took["median_us"]}
        for side, ratio in row["ratios"].items():
            if "value" in ratio:
                result.figures[f"against_{side}"] = ratio["value"]
            rival = row["sides"][side]["min_us"]
            result.figures[f"least_against_{side}"] = rival / took["min_us"]
    result.figures |= _numbers(row, ("peak_bytes", "max_abs"))
    result.families = row.get("families", {})
    for family, spent in result.families.get("ours", {}).items():
        result.figures[f"us:{family}"] = spent
    result.comparisons = {what: compare(logs) for what, logs in row.get("logs", {}).items()}
    suspects = {what for what, found in result.comparisons.items() if found.p < SUSPECT}
    for _ in range(REPEATS if suspects else 0):
        row = check(folder, settings, again=True)
        for what in suspects & row.get("logs", {}).keys():
            result.again.setdefault(what, []).append(compare(row["logs"][what]))
        suspects = {w for w in suspects if w in result.again and result.again[w][-1].p < SUSPECT}
        if not suspects:
            break


def check(folder: Path, settings: Settings, again: bool = False) -> Row:
    """`case.check` in a process of its own; `again` only times, in the other order."""
    options = ["--again", "--no-verify"] if again else []
    command = [CASE, "check", "--folder", str(folder), "--seconds", str(settings.seconds), *options]
    return run_module(command, settings.limit, under=shlex.split(settings.under))


def status_of(row: Row) -> str:
    """The status of a row that is not 0."""
    if row["exit_code"] == 1 and "passed" not in row:
        return "crashed"  # an exception, not a difference
    return STATUS.get(row["exit_code"], "crashed" if row["exit_code"] < 0 else "failed")


def failed(name: str, row: Row) -> Result:
    """A case that got nowhere."""
    status = status_of(row)
    return Result(name, "failed" if status == "wrong" else status, row.get("error", ""))


def left(name: str, why: str) -> Result:
    """A case that there was no time for."""
    return Result(name, LEFT, why)


def pick(name: str, settings: Settings) -> Result:
    """How good the tile is that the price picks (tools/bench/oracle.py): figure "pick"."""
    with TemporaryDirectory(prefix="tvmext-nightly-") as folder:
        file = Path(folder) / "rows.json"
        command = ["tools.bench", "oracle", name, "--json", str(file)]
        options = ["--seconds", str(settings.seconds), "--limit", str(settings.limit)]
        under = shlex.split(settings.under)
        done = run_module([*command, *options], settings.limit, under=under)
        rows = json.loads(file.read_text())["rows"] if file.exists() else []
    row = rows[0] if rows else {"error": done["error"]}
    if "error" in row:
        return Result(f"oracle/{name}", "failed", row["error"])
    figures = {"pick": row["share"]} if "share" in row else {}
    noisy = f"; {row['noisy']}" if "noisy" in row else ""
    told = f"picked {row['picked']}, best {row['best']}{noisy}"
    return Result(f"oracle/{name}", PASSED, told, figures)


def conformance(patterns: Sequence[str], shard: str, limit: float) -> Iterator[Result]:
    """ONNX's own tests: counts by suite, and a result for every test that should pass and does not.

    What was not reached within `limit` seconds is told as left.
    """
    with TemporaryDirectory(prefix="tvmext-nightly-") as folder:
        file = Path(folder) / "rows.json"
        only = [part for pattern in patterns for part in ("--only", pattern)]
        command = ["tools.conformance", "--json", str(file), "--shard", shard, *only]
        row = run_module(command, limit)
        rows = json.loads(file.read_text()) if file.exists() else []
    yield from conformance_results(rows)
    if row["exit_code"]:
        why = row.get("error", "ended early")
        yield Result("conformance/all", "left" if row["exit_code"] == 124 else "crashed", why)


def conformance_results(rows: Sequence[Row]) -> Iterator[Result]:
    """Results of rows of tools.conformance."""
    known = [pattern for pattern, _ in exclusions()]
    for suite in dict.fromkeys(row["suite"] for row in rows):
        mine = [row for row in rows if row["suite"] == suite]
        counts = Counter(row["status"] for row in mine)
        figures = {"tests": float(len(mine)), "passed": float(counts["passed"])}
        yield Result(f"conformance/{suite}", PASSED, ", ".join(_counted(counts)), figures)
        for row in mine:
            name = f"{suite}/{row['name']}"
            if row["status"] != "passed" and not any(fnmatch(name, each) for each in known):
                status = "wrong" if row["status"] == "wrong" else "failed"
                yield Result(f"conformance/{name}", status, f"{row['status']}: {row['reason']}")


def _counted(counts: Counter[str]) -> list[str]:
    return [f"{count} {status}" for status, count in counts.most_common()]


def _numbers(row: Row, names: Sequence[str]) -> dict[str, float]:
    found = {name: plain(row.get(name)) for name in names}
    return {name: value for name, value in found.items() if value is not None}
