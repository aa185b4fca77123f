"""The child's side of a compilation: runs one request and tells the parent how it goes.

Started by `child.compile_in_child`. The request comes as one line on stdin, which then stays open:
its end means that the parent is gone, and the child with all its helpers goes too. Messages leave
as JSON lines on a pipe of their own, because TVM and the tools it calls print to stdout:

    {"step": "build", "detail": "12 kernels", "seconds": 1.2}      work on this begins
    {"error": "ModelError", "message": ..., "hint": ..., "ops": [], "traceback": ...}
    {"done": true}
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
import traceback
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from typing import Any

from tvmext.errors import TvmextError, UnsupportedError

from .files import discard
from .request import CompileRequest


def main(pipe: int, entry: str) -> None:
    """Run the request on stdin with the function that `entry` ("module:name") names."""
    request = CompileRequest.from_json(sys.stdin.readline())
    threading.Thread(target=_die_with_parent, args=(request.output,), daemon=True).start()
    os.set_inheritable(pipe, False)
    with os.fdopen(pipe, "w", encoding="utf-8") as stream:
        send = _Sender(stream)
        try:
            module, _, function = entry.partition(":")
            getattr(import_module(module), function)(request, send.report)
            outcome: dict[str, Any] = {"done": True}
        except BaseException as error:  # SystemExit too: whatever it is, the parent raises it
            outcome = _describe(error)
        sys.stdout.flush()
        sys.stderr.flush()
        send.message(outcome)


class _Sender:
    """Writes messages, one JSON line each, flushed at once: a crash must not swallow the last."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self._start = time.monotonic()

    def report(self, step: str, detail: str = "") -> None:
        seconds = round(time.monotonic() - self._start, 3)
        self.message({"step": step, "detail": detail, "seconds": seconds})

    def message(self, content: dict[str, Any]) -> None:
        self._stream.write(json.dumps(content) + "\n")
        self._stream.flush()


def _describe(error: BaseException) -> dict[str, Any]:
    description = {"error": type(error).__name__, "traceback": traceback.format_exc()}
    if not isinstance(error, TvmextError):
        return {**description, "message": f"{type(error).__name__}: {error}", "hint": ""}
    ops = [asdict(op) for op in error.ops] if isinstance(error, UnsupportedError) else []
    return {**description, "message": error.message, "hint": error.hint, "ops": ops}


def _die_with_parent(output: str) -> None:
    """Wait for the end of stdin, then remove the unfinished output and end the process group."""
    sys.stdin.read()
    discard(Path(output))
    os.killpg(os.getpgrp(), signal.SIGKILL)
