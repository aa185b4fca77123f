"""Run ONNX's own tests on tvmext and write which operators pass.

python -m tools.conformance --json build/c.json      # everything
python -m tools.conformance --only 'test_resize*'    # some, each with its result
python -m tools.conformance --check --shard 0/4      # as CI does: against excluded.txt
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from datetime import date
from fnmatch import fnmatch
from pathlib import Path

from . import cases, table
from .run import Result, run


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tools.conformance", description=__doc__)
    parser.add_argument("--suite", action="append", choices=cases.SUITES)
    parser.add_argument("--only", action="append", default=[], metavar="GLOB")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--limit", type=float, default=60.0, help="seconds for one test")
    parser.add_argument("--opt-level", type=int, default=0)
    parser.add_argument("--json", help="write the results to this file")
    parser.add_argument("--failed", action="store_true", help="those that did not pass in --json")
    parser.add_argument("--table", help="write docs/conformance.md from --json, running nothing")
    parser.add_argument("--check", action="store_true", help="fail unless excluded.txt is right")
    parser.add_argument(
        "--shard", default="0/1", help="K/N: every N-th from the K-th; K or 'today'"
    )
    return parser.parse_args(arguments)


def main() -> int:
    """Run the tests; 0 unless --check finds that excluded.txt is not right."""
    arguments = parse()
    if arguments.table:
        rows = json.loads(Path(arguments.json).read_text())
        page = Path(arguments.table)
        header = page.read_text().split("## Node tests by group")[0]
        page.write_text(table.document([Result(**row) for row in rows], header))
        return 0
    import tvm  # noqa: F401  before the workers are forked

    from tvmext import api  # noqa: F401
    from tvmext.onnx_backend import TvmextBackend
    from tvmext.options import Options

    TvmextBackend.options = Options(opt_level=arguments.opt_level)
    tests = [
        (suite, case)
        for suite in arguments.suite or cases.SUITES
        for case in cases.load(suite)
        if not arguments.only or any(fnmatch(case.name, glob) for glob in arguments.only)
    ]
    first, shards = arguments.shard.split("/")
    shard = date.today().toordinal() % int(shards) if first == "today" else int(first)
    tests = tests[shard :: int(shards)]
    before: dict[tuple[str, str], Result] = {}
    if arguments.json and Path(arguments.json).exists() and (arguments.failed or arguments.only):
        rows = json.loads(Path(arguments.json).read_text())
        before = {(row["suite"], row["name"]): Result(**row) for row in rows}
    if arguments.failed:
        passed = {key for key, row in before.items() if row.status == "passed"}
        tests = [(suite, case) for suite, case in tests if (suite, case.name) not in passed]
    results = before

    def heard(result: Result) -> None:
        results[result.suite, result.name] = result
        if arguments.only or arguments.failed or result.status in ("crash", "timeout"):
            reason = result.reason
            print(f"{result.status:8} {result.seconds:6.2f} {result.name} {reason}", flush=True)
        if arguments.json:  # an interrupted run is not lost
            rows = [asdict(row) for row in results.values()]
            Path(arguments.json).write_text(json.dumps(rows, indent=0))

    run(tests, arguments.workers, arguments.limit, heard)
    for suite in cases.SUITES:
        mine = [r for r in results.values() if r.suite == suite]
        if mine:
            print(suite, dict(Counter((f"{r.kind} {r.status}") for r in mine)))
    return _check(list(results.values())) if arguments.check else 0


def _check(results: list[Result]) -> int:
    """1 if a test fails that is not excluded, or one that is passes."""
    excluded, wrong = exclusions(), 0
    for row in results:
        name = f"{row.suite}/{row.name}"
        reason = next((why for pattern, why in excluded if fnmatch(name, pattern)), "")
        if (row.status == "passed") == bool(reason):
            wrong += 1
            told = f"excluded: {reason}" if reason else f"not excluded: {row.reason}"
            print(f"{row.status}, but {told}: {name}")
    return 1 if wrong else 0


def exclusions() -> list[tuple[str, str]]:
    """(pattern, reason) of each line of excluded.txt."""
    text = Path(__file__).with_name("excluded.txt").read_text()
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return [(glob.strip(), why.strip()) for glob, _, why in (line.partition(":") for line in lines)]


if __name__ == "__main__":
    sys.exit(main())
