"""The last night as Markdown."""

from __future__ import annotations

from collections.abc import Sequence

from tvmext.report.html import bytes_text

from ..bench.report import markdown
from .history import LEFT, PASSED, History, Result, Run
from .judge import RUN
from .overview import LEAST, RIVAL, VERDICTS, faster, grouped, rivals, smallest, statuses

COLUMNS = (
    *("case", "result", "us", "ONNX Runtime / ours", "of minima", "change", "compile s"),
    *("library", "peak memory", "planned", "kernels", "movement left"),
)


def summary(history: History, device: str) -> str:
    """The page of the last night of a device."""
    number, run = history.runs(device)[-1]
    results = history.results(number)
    groups = grouped(history.alarms(number))
    parts = [f"# {run.started[:10]}: {VERDICTS[run.verdict]}\n", *_about(run, results)]
    if groups:
        parts.append("\n## What became worse\n")
    for group in groups:
        blamed = "; ".join(group.culprits)
        parts.append(f"- **{group.title}**" + (f", since {blamed}" if blamed else ""))
        parts += [f"  - {alarm.name}: {alarm.detail}" for alarm in group.alarms[:10]]
        if len(group.alarms) > 10:
            parts.append(f"  - and {len(group.alarms) - 10} more")
    if quicker := faster(results):
        parts.append("\n## What became faster\n")
        parts += [f"- {name}: {100 * effect:+.1f} %" for name, effect in quicker]
    parts += ["\n## Against ONNX Runtime\n", _against(results), "\n## Cases\n", _table(results)]
    others = [each for each in results if each.name.startswith(("oracle/", "conformance/"))]
    if others:
        parts.append("\n## Picks of the cost model, and ONNX's own tests\n")
        parts += [f"- {each.name}: {summed(each) or each.status}" for each in others]
    if failing := [each for each in results if each.status not in (PASSED, LEFT)]:
        parts.append("\n## What fails\n")
        parts += [f"- {each.name}: {each.status}: {each.detail[:200]}" for each in failing]
    return "\n".join(parts) + "\n"


def _about(run: Run, results: Sequence[Result]) -> list[str]:
    counts = ", ".join(f"{count} {status}" for status, count in statuses(results).most_common())
    with_base = f", compared with {run.base[:9]}" if run.base else ", the first night"
    packages = ", ".join(f"{name} {version}" for name, version in run.versions.items())
    lines = [
        f"- commit: {run.subject}{with_base}",
        f"- machine: {run.device}; {packages}",
        f"- {run.started} UTC, {run.seconds / 60:.0f} minutes; results: {counts}",
    ]
    if seen := smallest(results):
        middle, most = seen[len(seen) // 2], seen[-1]
        lines.append(
            f"- slowdowns of a run that would have been seen: from {100 * middle:.1f} % in half of "
            f"the cases, from {100 * most:.0f} % in all; {len(seen)} cases were quiet enough"
        )
    return lines


def _against(results: Sequence[Result]) -> str:
    lines = [
        [name, str(count), f"{mean:.2f}", f"{least:.2f}"]
        for name, (mean, least, count) in rivals(results).items()
    ]
    return markdown(["", "cases", "geometric mean", "least"], lines, left=("",))


def _table(results: Sequence[Result]) -> str:
    cases = [each for each in results if each.name.startswith(("zoo/", "ops/"))]
    lines = [_line(each) for each in cases if each.status != LEFT]
    table = markdown(COLUMNS, lines, left=("case", "result"))
    names = [each.name for each in cases if each.status == LEFT]
    if not names:
        return table
    told = f"{len(names)} had no time and go first the next night"
    return f"{table}\n\n<details><summary>{told}</summary>\n\n{', '.join(names)}\n\n</details>"


def _line(result: Result) -> list[str]:
    found = result.figures
    return [
        result.name,
        result.status,
        number(found.get("us"), "{:.4g}"),
        number(found.get(RIVAL), "{:.2f}"),
        number(found.get(LEAST), "{:.2f}"),
        change(result),
        number(found.get("compile_seconds"), "{:.1f}"),
        *(size(found.get(name)) for name in ("library_bytes", "peak_bytes", "planned_bytes")),
        *(number(found.get(name), "{:.0f}") for name in ("kernels", "movement_left")),
    ]


def summed(result: Result) -> str:
    """What there is to say of a case besides its columns."""
    share = f"{result.figures['pick']:.2f} of the best speed, " if "pick" in result.figures else ""
    return share + result.detail


def change(result: Result) -> str:
    """``+1.2 %`` against the base; nothing if it cannot be told."""
    found = result.comparisons.get(RUN)
    if found is None or found.noisy:
        return ""
    return f"{round(100 * found.effect, 1) + 0.0:+.1f} %"  # no negative zero


def number(value: float | None, form: str) -> str:
    """Nothing for None."""
    return "" if value is None else form.format(value)


def size(value: float | None) -> str:
    """``1.5 MB``."""
    return "" if value is None else bytes_text(int(value))
