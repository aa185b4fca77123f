"""Rows from workers that may crash or hang."""

from __future__ import annotations

import json
import os
import selectors
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType
from typing import Any

from .worker import Row

ROOT = Path(__file__).resolve().parents[2]
HUGE_PAGES = {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}
"""Large arrays in pages of 2 MB, where Linux has them (glibc 2.35). With 4 KB the same kernel over
two copies of a weight of 16 MB differs by up to 1.5, by where the pages happen to lie."""


def rows(
    requests: Sequence[Row],
    settings: Row,
    limit: float,
    environment: Mapping[str, str] = MappingProxyType({}),
) -> Iterator[Row]:
    """First a description of the machine, then a row for each request.

    `settings` are the arguments of `worker.Worker`; `environment` is added to that of the worker. A
    request that takes more than `limit` seconds, or that ends its worker, gets a row with "error"
    and what was asked for.
    """
    worker = _Worker(settings, environment)
    try:
        yield worker.reply(limit)
        for request in requests:
            row = worker.ask(request, limit)
            if worker.ended:
                row = {**request, "threads": settings["threads"], **row}
                worker = _Worker(settings, environment)
                worker.reply(limit)
            yield row
    finally:
        worker.end()


class _Worker:
    """A running worker.py."""

    def __init__(self, settings: Row, environment: Mapping[str, str]) -> None:
        self.ended = False
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tools.bench.worker", json.dumps(settings)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, **_threads(settings["threads"]), **environment},
            cwd=ROOT,
        )

    def ask(self, request: Row, limit: float) -> Row:
        """The row of a request, or {"error": ...}; after a crash or a time-out `ended` is true."""
        assert self._process.stdin
        self._process.stdin.write(json.dumps(request).encode() + b"\n")
        self._process.stdin.flush()
        return self.reply(limit)

    def reply(self, limit: float) -> Row:
        """The next line of the worker."""
        assert self._process.stdout
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            if not selector.select(limit):
                self.end()
                return {"error": f"stopped after {limit:.0f} s"}
        if line := self._process.stdout.readline():
            found: dict[str, Any] = json.loads(line)
            return found
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(60)  # it has closed its output; let it end by itself
        self.end()
        return {"error": f"the worker ended with exit code {self._process.returncode}"}

    def end(self) -> None:
        """Kill it if it still runs, and wait for it."""
        self.ended = True
        self._process.kill()
        self._process.communicate()


def _threads(threads: int) -> dict[str, str]:
    count = str(threads)
    return {"TVM_NUM_THREADS": count, "OMP_NUM_THREADS": count}
