"""What a night measures, part by part: each gives results, and what goes wrong is one of them."""

from __future__ import annotations

import json
import shlex
from collections import Counter
from collections.abc import Iterator, Sequence
from fnmatch import fnmatch
from pathlib import Path
from tempfile import TemporaryDirectory

from ..conformance.__main__ import exclusions
from ..zoo.runner import Row, run_module
from .ahead import Making
from .cases import Case
from .history import LEFT, PASSED, Result, plain
from .sides import CASE, Settings
from .stats import REPEATS, SUSPECT, compare

BUILT = (
    *("compile_seconds", "compiler_bytes", "library_bytes"),
    *("planned_bytes", "kernels", "movement_left"),
)
STATUS = {0: PASSED, 1: "wrong", 3: "failed", 124: "timeout"}


def measured(case: Case, made: Making, settings: Settings) -> tuple[Result, dict[str, float]]:
    """A case that was made, and the figures of the base that came on the way."""
    row = made.row
    ours = row if row["exit_code"] else row["ours"]
    if ours["exit_code"]:
        return failed(case.name, ours), {}
    result = Result(case.name, PASSED, figures=_numbers(ours, BUILT))
    checked(result, made.folder, settings)
    return result, _numbers(row.get("base", {}), BUILT)


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
    if settings.core is not None:
        options += ["--core", str(settings.core)]
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
