"""While one case is timed the next one is made, on the other cores."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory

from ..zoo.runner import Row, end, finished, start_module
from .cases import Case
from .sides import Settings
from .stats import REPEATS

MOST = 2 + REPEATS
"""What a case waits for, one after the other, each within the limit: to be drawn, and compiled."""


class Making:
    """A case that a process of its own makes in a folder of its own (sides.py)."""

    row: Row
    """What came of it, once `wait` has returned."""

    def __init__(self, case: Case, settings: Settings) -> None:
        self._temporary = TemporaryDirectory(prefix="tvmext-nightly-", ignore_cleanup_errors=True)
        self.folder = Path(self._temporary.name)
        self._limit = MOST * settings.limit
        asked = {"case": asdict(case), "folder": str(self.folder), "settings": asdict(settings)}
        self._process = start_module(["tools.nightly.sides", json.dumps(asked, default=str)])

    def wait(self) -> None:
        """Until it is made; not longer than its processes may take."""
        self.row = finished(self._process, self._limit)

    def close(self) -> None:
        """Stop what still runs, and remove the folder."""
        end(self._process)
        self._temporary.cleanup()


class Ahead:
    """Makes cases, one ahead of the one that is asked for; a context that leaves nothing behind."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._open: dict[str, Making] = {}

    def __enter__(self) -> Ahead:
        return self

    def __exit__(self, *_: object) -> None:
        for name in list(self._open):
            self.close(name)

    def take(self, case: Case, after: Case | None) -> Making:
        """A case, made; from now on `after` is. On one core that would disturb what is timed."""
        making = self._begin(case)
        making.wait()
        if after and self.settings.core is not None:
            self._begin(after)
        return making

    def close(self, name: str) -> None:
        """A case that is no longer needed."""
        self._open.pop(name).close()

    def _begin(self, case: Case) -> Making:
        if case.name not in self._open:
            self._open[case.name] = Making(case, self.settings)
        return self._open[case.name]
