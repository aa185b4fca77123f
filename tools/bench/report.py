"""Rows as Markdown tables and as JSON."""

from __future__ import annotations

import importlib.metadata
import json
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from tvmext.measure.samples import geometric_mean

PACKAGES = ("tvmext", "apache-tvm", "onnxruntime", "torch")
RATIOS = ("value", "net", "interior")
Row = Mapping[str, Any]


def ops_table(rows: Sequence[Row], against: Sequence[str]) -> str:
    """A line for each case: times, ratios (theirs / ours, above 1 ours is faster), roofline."""
    columns = ["case", "threads", "tvmext us", *(f"{name} us" for name in against)]
    for name in against:
        columns += [f"{name} / tvmext", "net"]
    columns += ["interior", "of roofline", "note"]
    return markdown(columns, [_ops_line(row, against) for row in rows], left=("case", "note"))


def _ops_line(row: Row, against: Sequence[str]) -> list[str]:
    sides, ratios = row.get("sides", {}), row.get("ratios", {})
    cells = [row["case"], str(row["threads"])]
    cells += [times(sides.get(name)) for name in ("tvmext", *against)]
    for name in against:
        cells += [ratio_text(ratios.get(name, {})), number(ratios.get(name, {}).get("net"))]
    first = ratios.get(against[0], {}) if against else {}
    cells.append(number(first.get("interior")))
    cells.append(_roofline(row))
    cells.append(row.get("error", ""))
    return cells


def _roofline(row: Row) -> str:
    ours = row.get("sides", {}).get("tvmext")
    if not ours or ours["noisy"]:
        return ""
    spent = ours.get("interior_us", ours["net_us"])
    return f"{row['roofline_us'] / spent:.0%}" if spent > 0 else ""


def family_table(rows: Sequence[Row], rival: str) -> str:
    """A line for each family and number of threads: geometric means and the least ratio."""
    columns = ["family", "threads", "cases", "noisy", "failed", "ratio", "net", "interior", "least"]
    lines = []
    for family, threads in dict.fromkeys((row["family"], row["threads"]) for row in rows):
        chosen = [r for r in rows if (r["family"], r["threads"]) == (family, threads)]
        ratios = [row.get("ratios", {}).get(rival, {}) for row in chosen]
        means = {kind: [r[kind] for r in ratios if kind in r] for kind in RATIOS}
        lines.append(
            [
                family,
                str(threads),
                str(len(chosen)),
                str(sum("noisy" in ratio for ratio in ratios)),
                str(sum("error" in row for row in chosen)),
                *(number(geometric_mean(means[kind])) for kind in RATIOS),
                number(min(means["value"], default=None)),
            ]
        )
    return markdown(columns, lines, left=("family",))


def oracle_table(rows: Sequence[Row]) -> str:
    """A line for each case: the decision that the price picked and the best one."""
    columns = ["case", "threads", "picked", "best", "pick / best", "note"]
    lines = [
        [
            row["case"],
            str(row["threads"]),
            row.get("picked", ""),
            row.get("best", ""),
            "noisy" if "noisy" in row else number(row.get("share")),
            row.get("error", ""),
        ]
        for row in rows
    ]
    return markdown(columns, lines, left=("case", "note"))


def oracle_summary(rows: Sequence[Row]) -> str:
    """The geometric mean of the picks' speeds as parts of the best."""
    shares = [row["share"] for row in rows if "share" in row]
    if not shares:
        return "no case was measured undisturbed"
    mean = geometric_mean(shares)
    return f"pick / best: geometric mean {mean:.3f}, least {min(shares):.2f}, {len(shares)} cases"


def models_table(rows: Sequence[Row]) -> str:
    """A line for each model, number of threads and other side."""
    columns = ["model", "threads", "tvmext us", "other", "its us", "other / tvmext", "note"]
    lines = [
        [
            row["name"],
            str(row["threads"]),
            times(row.get("sides", {}).get("tvmext")),
            rival,
            times(row.get("sides", {}).get(rival)),
            ratio_text(row.get("ratios", {}).get(rival, {})),
            row.get("error", ""),
        ]
        for row in rows
        for rival in row.get("ratios", {"onnxruntime": {}})
    ]
    return markdown(columns, lines, left=("model", "other", "note"))


def profile_table(row: Row, top: int) -> str:
    """Where our time goes in one model: the `top` kernels by the sum over their calls."""
    kernels = row["profile"]["kernels"]
    whole = sum(kernel["us"] for kernel in kernels) or 1.0
    groups: dict[str, list[Row]] = {}
    for kernel in kernels:
        groups.setdefault(kernel["kernel"], []).append(kernel)
    spent = {name: sum(k["us"] for k in group) for name, group in groups.items()}
    columns = ["kernel", "rule", "calls", "us", "share", "GFLOP/s", "arguments"]
    lines = []
    for name in sorted(groups, key=lambda name: -spent[name])[:top]:
        first = groups[name][0]
        known = [k for k in groups[name] if k["flops"]]
        rate = sum(k["flops"] for k in known) / spent[name] / 1e3 if known else None
        shapes = " ".join("x".join(map(str, shape)) or "()" for shape in first["shapes"])
        counts = [str(len(groups[name])), f"{spent[name]:.1f}", f"{spent[name] / whole:.1%}"]
        rate_text = "" if rate is None else f"{rate:.1f}"
        lines.append([name, first["rule"], *counts, rate_text, shapes])
    return markdown(columns, lines, left=("kernel", "rule", "arguments"))


def times(side: Row | None) -> str:
    """``minimum / median``, with a question mark where the machine was disturbed."""
    if not side:
        return ""
    mark = " ?" if side["noisy"] else ""
    return f"{side['min_us']:.4g} / {side['median_us']:.4g}{mark}"


def ratio_text(ratio: Row) -> str:
    """``1.23 (1.20-1.25)``, or that it cannot be told."""
    if "noisy" in ratio:
        return "noisy"
    if "value" not in ratio:
        return ""
    return f"{ratio['value']:.2f} ({ratio['low']:.2f}-{ratio['high']:.2f})"


def number(value: float | None) -> str:
    """Two decimals; nothing for None and NaN."""
    return "" if value is None or value != value else f"{value:.2f}"


def markdown(columns: Sequence[str], lines: Sequence[Sequence[str]], left: Sequence[str]) -> str:
    """A Markdown table that is aligned as plain text, too; columns not in `left` to the right."""
    cells = [[cell.replace("|", "/") for cell in line] for line in lines]
    widths = [max(3, *(len(line[i]) for line in [columns, *cells])) for i in range(len(columns))]
    rule = ["-" * w if c in left else "-" * (w - 1) + ":" for c, w in zip(columns, widths)]
    return "\n".join(
        "| "
        + " | ".join(
            cell.ljust(width) if column in left else cell.rjust(width)
            for column, cell, width in zip(columns, line, widths)
        )
        + " |"
        for line in [columns, rule, *cells]
    )


def document(machines: Sequence[Row], **content: Any) -> dict[str, Any]:
    """What goes to a JSON file: when, with what, where, and `content`."""
    return {
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "versions": versions(),
        "machines": list(machines),
        **content,
    }


def write_json(path: Path, document: Mapping[str, Any]) -> None:
    """Write a document, making its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document, indent=1) + "\n")


def versions() -> dict[str, str]:
    """The versions of the packages that are compared, where they are installed."""
    installed = {
        d.name: d.version for d in importlib.metadata.distributions() if d.name in PACKAGES
    }
    return dict(sorted(installed.items()))
