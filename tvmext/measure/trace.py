"""A profile as a timeline that Perfetto and Chrome's tracing page open (Trace Event Format)."""

from __future__ import annotations

import json
from typing import Any

from .profile import BUILTIN, ModelProfile

KERNELS, MACHINE = 1, 2
"""Thread numbers: a line for kernels and one for the virtual machine's own calls."""


def trace(found: ModelProfile) -> str:
    """The fastest instrumented run as JSON: complete events, in microseconds.

    https://docs.google.com/document/d/1CvAClvFfyA5R-PhYUmn5OOQtYMH4h6I0nSsKchNAySU
    """
    rows = {row.kernel.position: row for row in found.rows}
    events: list[dict[str, Any]] = [
        _named("process_name", 0, found.model or "model"),
        _named("thread_name", KERNELS, "kernels"),
        _named("thread_name", MACHINE, "virtual machine"),
    ]
    for position, event in enumerate(found.timeline):
        row = rows.get(position)
        complete: dict[str, Any] = {
            "name": event.name.removeprefix(BUILTIN),
            "cat": "kernel" if row else "builtin",
            "ph": "X",
            "pid": 0,
            "tid": KERNELS if row else MACHINE,
            "ts": event.start * 1e6,
            "dur": event.seconds * 1e6,
        }
        if row:
            complete["args"] = {
                "nodes": list(row.nodes),
                "rule": row.rule,
                "flops": row.flops,
                "bytes": row.bytes,
            }
        events.append(complete)
    return json.dumps({"traceEvents": events, "displayTimeUnit": "ns"})


def _named(what: str, thread: int, name: str) -> dict[str, Any]:
    return {"name": what, "ph": "M", "pid": 0, "tid": thread, "args": {"name": name}}
