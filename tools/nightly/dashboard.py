"""All nights of a device as one page of HTML that needs nothing else: no server, no network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from importlib.resources import files
from pathlib import Path

from tvmext.measure.groups import time_text
from tvmext.measure.samples import geometric_mean

from .history import LEFT, PASSED, History, Result, Run
from .judge import RUN
from .overview import LEAST, RIVAL, VERDICTS, Group, family, grouped, smallest, statuses, trends
from .plot import plot, spark
from .stats import LEAST as LEAST_EFFECT
from .summary import change, number, size, summed

SHOWN_ALARMS = 8
ORDER = {PASSED: 1, LEFT: 2}
"""Of the cases by status: what fails comes first."""

_SEARCH = """
const rows = [...document.querySelectorAll("#cases tbody tr")];
const text = document.querySelector("#search");
const buttons = [...document.querySelectorAll(".tools button")];
let wanted = "";
function show() {
  for (const row of rows)
    row.hidden = (wanted && row.dataset.kind !== wanted)
      || !row.textContent.toLowerCase().includes(text.value.toLowerCase());
}
text.addEventListener("input", show);
for (const button of buttons)
  button.addEventListener("click", () => {
    wanted = wanted === button.value ? "" : button.value;
    for (const each of buttons) each.ariaPressed = each.value === wanted;
    show();
  });
"""


def dashboard(history: History, device: str) -> str:
    """The whole page."""
    style = files("tvmext.report").joinpath("page.css").read_text(encoding="utf-8")
    style += Path(__file__).with_name("dashboard.css").read_text(encoding="utf-8")
    runs = history.runs(device)
    number_of, run = runs[-1]
    results = history.results(number_of)
    labels = {n: f"{one.started[:10]}, {one.subject}" for n, one in runs}
    body = "".join(
        (
            _header(run, len(runs)),
            _cards(run, results),
            _alarms(grouped(history.alarms(number_of))),
            _plots(history, device, labels),
            _cases(results, history.series(device, "us")),
            _nights(runs),
        )
    )
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>tvmext: nights</title><style>{style}</style></head>"
        f"<body><main>{body}</main><script>{_SEARCH}</script></body></html>\n"
    )


def _header(run: Run, count: int) -> str:
    base = f"compared with <code>{run.base[:9]}</code>" if run.base else "the first night"
    packages = ", ".join(f"{name} {version}" for name, version in run.versions.items())
    verdict = f'<span class="verdict {run.verdict}">{VERDICTS[run.verdict]}</span>'
    return (
        f"<h1>Night of {run.started[:10]}</h1><p>{verdict}</p>"
        f'<p class="facts"><b>{escape(run.subject)}</b>, {base}. '
        f"{escape(run.device)}; {escape(packages)}; {run.seconds / 60:.0f} minutes; "
        f"{count} night{'s' * (count > 1)} in the history.</p>"
    )


def _cards(run: Run, results: Sequence[Result]) -> str:
    counts = statuses(results)
    failing = sum(n for status, n in counts.items() if status not in ORDER)
    seen = smallest(results)
    cards = [("Passed", str(counts[PASSED]), f"{failing} fail, {counts[LEFT]} had no time")]
    for part, title in (("zoo/", "Networks"), ("ops/", "Operators")):
        ratios = [
            r.figures[LEAST] for r in results if r.name.startswith(part) and LEAST in r.figures
        ]
        if ratios:
            told = f"ONNX Runtime / ours, {len(ratios)} cases, least {min(ratios):.2f}"
            cards.append((title, f"{geometric_mean(ratios):.2f}", told))
    if seen:
        told = f"in half of {len(seen)} cases; below {100 * LEAST_EFFECT:.0f} % nothing alarms"
        cards.append(("Slowdowns seen from", f"{100 * seen[len(seen) // 2]:.1f} %", told))
    made = (
        f'<div class="card"><h3>{title}</h3><div class="big">{big}</div>'
        f'<div class="soft">{small}</div></div>'
        for title, big, small in cards
    )
    return f'<div class="cards">{"".join(made)}</div>'


def _alarms(groups: Sequence[Group]) -> str:
    if not groups:
        return ""
    return "<h2>What became worse</h2>" + "".join(map(_alarm, groups))


def _alarm(group: Group) -> str:
    shown = group.alarms[:SHOWN_ALARMS]
    items = "".join(
        f"<li><b>{escape(alarm.name)}</b>: {escape(alarm.detail[:300])}</li>" for alarm in shown
    )
    left = len(group.alarms) - len(shown)
    more = f"<li>and {left} more</li>" if left else ""
    culprits = "; ".join(f"<code>{escape(one)}</code>" for one in group.culprits)
    since = f'<p class="culprit">since {culprits}</p>' if culprits else ""
    title = f"<h3>{escape(group.title)}</h3>"
    return f'<div class="panel alarm">{title}{since}<ul>{items}{more}</ul></div>'


def _plots(history: History, device: str, labels: Mapping[int, str]) -> str:
    made = (
        f'<div class="card"><h3>{escape(trend.title)}</h3><div class="soft">{escape(trend.told)}'
        f"{' (more is better)' if trend.good > 0 else ' (less is better)'}</div>"
        f"{plot(trend, labels)}</div>"
        for trend in trends(history, device)
    )
    return f'<h2>Over the nights</h2><div class="plots">{"".join(made)}</div>'


def _cases(results: Sequence[Result], times: Mapping[str, Sequence[tuple[int, float]]]) -> str:
    ordered = sorted(results, key=lambda each: ORDER.get(each.status, 0))
    rows = "".join(
        _case(each, [value for _, value in times.get(each.name, ())]) for each in ordered
    )
    kinds = dict.fromkeys(kind(each) for each in results)
    buttons = "".join(f'<button value="{one}" aria-pressed="false">{one}</button>' for one in kinds)
    wide = ("ratio", "compile", "library", "peak", "planned", "movement")
    heads = "".join(f'<th class="n wide">{name}</th>' for name in wide)
    return (
        '<h2>Cases</h2><p class="soft">Ratio is ONNX Runtime\u2019s time over ours, change that of '
        "our time since the commit it is compared with. Then seconds to compile, bytes of the "
        "library, memory of a run and memory planned, and kernels that only move data.</p>"
        '<div class="panel"><div class="tools">'
        f'<input id="search" type="search" placeholder="Search" aria-label="Search">{buttons}</div>'
        '<div class="rows"><table id="cases"><thead><tr><th>case</th><th>result</th>'
        '<th class="n">time</th><th class="n">change</th><th class="wide">time over the nights</th>'
        f"{heads}</tr></thead><tbody>{rows}</tbody></table></div></div>"
    )


def kind(result: Result) -> str:
    """The button that shows a result."""
    part = result.name.partition("/")[0]
    if part == "zoo":
        return family(result.name).removeprefix("networks, ")
    return {"ops": "operators", "oracle": "picks"}.get(part, part)


def _case(result: Result, times: Sequence[float]) -> str:
    found = result.figures
    cells = (
        number(found.get(RIVAL, found.get(LEAST)), "{:.2f}"),
        number(found.get("compile_seconds"), "{:.1f} s"),
        *(size(found.get(name)) for name in ("library_bytes", "peak_bytes", "planned_bytes")),
        number(found.get("movement_left"), "{:.0f}"),
    )
    wide = "".join(f'<td class="n wide">{cell}</td>' for cell in cells)
    took = time_text(found["us"] / 1e6) if "us" in found else ""
    detail = summed(result)
    told = f'<div class="more">{escape(detail[:160])}</div>' if detail else ""
    return (
        f'<tr data-kind="{kind(result)}"><td>{escape(result.name.partition("/")[2])}{told}</td>'
        f'<td class="status {result.status}">{result.status}</td><td class="n">{took}</td>'
        f'<td class="n {_tone(result)}">{change(result)}</td>'
        f'<td class="wide">{spark(times)}</td>{wide}</tr>'
    )


def _tone(result: Result) -> str:
    compared = result.comparisons.get(RUN)
    if compared is None or compared.noisy:
        return ""
    if compared.low > LEAST_EFFECT:
        return "worse"
    return "better" if compared.high < -LEAST_EFFECT else ""


def _nights(runs: Sequence[tuple[int, Run]]) -> str:
    rows = "".join(map(_night, (run for _, run in reversed(runs))))
    return (
        '<h2>Nights</h2><div class="panel rows"><table id="nights"><thead><tr><th>UTC</th>'
        '<th>commit</th><th>verdict</th><th class="n wide">minutes</th></tr></thead>'
        f"<tbody>{rows}</tbody></table></div>"
    )


def _night(run: Run) -> str:
    date, time = run.started[:10], run.started[10:16]
    return (
        f'<tr><td class="reason">{date}<span class="wide">{time}</span></td>'
        f"<td>{escape(run.subject)}</td>"
        f'<td><span class="verdict {run.verdict}">{run.verdict}</span></td>'
        f'<td class="n wide">{run.seconds / 60:.0f}</td></tr>'
    )
