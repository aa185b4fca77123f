"""Feed mutated ONNX files to the compiler and report what is neither compiled nor refused.

python -m tools.fuzz --count 20000 --seed 1 --json build/fuzz.json   # a run
python -m tools.fuzz --seed 1 --count 20000 --write 4711 m.onnx      # the file of a finding
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from .. import forked
from . import check, corpus
from .mutants import Mutant

SHARE_OF_NETWORKS = 0.03
MEMORY = 6 << 30


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tools.fuzz", description=__doc__)
    parser.add_argument("--count", type=int, default=20000, help="mutants")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--first", type=int, default=0, help="the number of the first one to run")
    parser.add_argument("--only", type=int, action="append", help="just these numbers")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--limit", type=float, default=30.0, help="seconds for one mutant")
    parser.add_argument("--write", nargs=2, metavar=("NUMBER", "FILE"), help="write a mutant")
    parser.add_argument("--json", type=Path, help="write the findings and the counts")
    return parser.parse_args(arguments)


def main() -> int:
    arguments = parse()
    jobs = mutants(arguments.seed, arguments.count)
    if arguments.write:
        Path(arguments.write[1]).write_bytes(jobs[int(arguments.write[0])].make()[0])
        return 0
    jobs = [jobs[k] for k in arguments.only] if arguments.only else jobs[arguments.first :]
    counts: Counter[str] = Counter()
    found: list[check.Result] = []
    start, computed = time.monotonic(), 0.0

    def heard(result: check.Result) -> None:
        nonlocal computed
        counts[result.status] += 1
        computed += result.seconds
        if result.finding or arguments.only:
            found.append(result)
            print(*asdict(result).values(), sep=" | ", flush=True)
        if counts.total() % 500 and not result.finding:
            return
        passed = time.monotonic() - start
        print(f"{dict(counts)}, {computed:.0f} s of {passed:.0f}", file=sys.stderr, flush=True)
        if arguments.json:
            write(arguments.json, counts, found)

    search(jobs, arguments.limit, arguments.workers, heard)
    if arguments.json:
        write(arguments.json, counts, found)
    print(f"{dict(counts)}, {computed:.0f} s")
    return int(any(result.finding for result in found))


def mutants(seed: int, count: int) -> list[Mutant]:
    """The mutants of a run: mostly of single nodes, some of whole networks."""
    rng = random.Random(seed)
    light, whole = [*corpus.nodes(), *corpus.small()], corpus.networks()
    kinds = [whole if rng.random() < SHARE_OF_NETWORKS else light for _ in range(count)]
    return [Mutant(rng.choice(kind), number, seed) for number, kind in enumerate(kinds)]


def search(jobs: Sequence[Mutant], limit: float, workers: int, heard: object) -> None:
    limits = forked.Limits(limit, MEMORY, jobs=1000)
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        checker = check.Checker(Path(folder))
        work = forked.Work(checker.check, check.ended, checker.begin)
        forked.run(jobs, work, limits, heard, workers)  # type: ignore[arg-type]


def write(path: Path, counts: Counter[str], found: list[check.Result]) -> None:
    path.write_text(
        json.dumps({"counts": counts, "findings": [asdict(r) for r in found]}, indent=0)
    )


if __name__ == "__main__":
    sys.exit(main())
