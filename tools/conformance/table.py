"""The results as docs/conformance.md: by group, by operator, and what fails."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable
from typing import Any

from . import cases
from .run import Result

OTHERS = {
    "plain": (662, 1348, 1390),
    "opset 27-28": (92, 135, 206),
    "8/4/2-bit types": (2, 150, 164),
    "bfloat16": (4, 4, 14),
    "random, training, ml": (1, 6, 21),
}
"""Tests of a group that stock TVM 0.27, ONNX Runtime 1.31 (its opset and IR version limited to what
it knows) and onnx.reference pass; measured once, with each test in a process of its own."""


def document(results: Iterable[Result], header: str) -> str:
    """The page; `header` says what was run, when and how."""
    rows = {(row.suite, row.name): row for row in results}
    node = {case.name: case.model for case in cases.load("node")}
    core = {
        name: rows["node", name]
        for name, model in node.items()
        if ("node", name) in rows and cases.kind_of(model) == "core"
    }
    failed = [row for row in rows.values() if row.status != "passed"]
    sections = [
        header,
        "## Node tests by group\n",
        _groups(core, node),
        "## The other suites\n",
        _suites(rows.values()),
        "## By operator\n\nTests of the core that pass, of those that exist; all pass where an "
        "operator is not listed.\n",
        _operators(core.values()),
        "## What does not pass\n",
        _failures([row for row in failed if row.kind == "core"]),
    ]
    return "\n".join(sections)


def _groups(core: dict[str, Result], node: dict[str, Any]) -> str:
    found: dict[str, list[Result]] = defaultdict(list)
    for name, row in core.items():
        found[cases.group_of(node[name], name)].append(row)
    lines = [
        "| group | tests | tvmext | stock TVM | ONNX Runtime | onnx.reference |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    totals = [0] * 5
    for group, others in OTHERS.items():
        numbers = [len(found[group]), _passed(found[group]), *others]
        totals = [a + b for a, b in zip(totals, numbers)]
        lines.append(f"| {group} | {' | '.join(map(str, numbers))} |")
    lines.append(f"| **core** | {' | '.join(f'**{n}**' for n in totals)} |\n")
    return "\n".join(lines)


def _suites(rows: Iterable[Result]) -> str:
    found: dict[str, list[Result]] = defaultdict(list)
    for row in rows:
        found[f"{row.suite}, {row.kind}"].append(row)
    lines = ["| suite | tests | pass |", "|---|---:|---:|"]
    for name, members in sorted(found.items()):
        lines.append(f"| {name} | {len(members)} | {_passed(members)} |")
    return "\n".join([*lines, ""])


def _operators(core: Iterable[Result]) -> str:
    found: dict[str, list[Result]] = defaultdict(list)
    for row in core:
        found[row.operator or _stem(row.name)].append(row)
    lines = ["| operator or test | tests | pass |", "|---|---:|---:|"]
    for name, members in sorted(found.items()):
        if _passed(members) < len(members):
            lines.append(f"| {name} | {len(members)} | {_passed(members)} |")
    return "\n".join([*lines, ""])


def _stem(name: str) -> str:
    """Tests of one body share the start of their names."""
    stem = re.sub(r"_expanded.*", "", name.removeprefix("test_"))
    return f"{'_'.join(stem.split('_')[:2])} (expanded)"


def _failures(rows: Iterable[Result]) -> str:
    lines = ["| suite | test | result | reason |", "|---|---|---|---|"]
    for row in sorted(rows, key=lambda row: (row.suite, row.name)):
        reason = row.reason.replace("|", "/").replace("\n", " ")[:160]
        lines.append(f"| {row.suite} | {row.name} | {row.status} | {reason} |")
    return "\n".join([*lines, ""])


def _passed(rows: Iterable[Result]) -> int:
    return sum(row.status == "passed" for row in rows)
