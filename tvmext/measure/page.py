"""A profile as one page of HTML that needs nothing else: no scripts or fonts from anywhere."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from importlib.resources import files

from tvmext.schedules.brief import brief

from .groups import Group, groups, rate_text, share_text, time_text, total
from .profile import ModelProfile
from .roofline import memory_bandwidth, roofline

NODES_SHOWN = 3

_SEARCH = """
const rows = [...document.querySelectorAll("#calls tbody tr")];
document.querySelector("#search").addEventListener("input", event => {
  const wanted = event.target.value.toLowerCase();
  for (const row of rows) row.hidden = !row.textContent.toLowerCase().includes(wanted);
});
"""


def page(found: ModelProfile) -> str:
    """The whole page."""
    style = files("tvmext.report").joinpath("page.css").read_text(encoding="utf-8")
    style += files(__package__).joinpath("profile.css").read_text(encoding="utf-8")
    kernels = groups(found.rows)
    name = escape(found.model.rpartition("/")[2])
    body = "".join((_header(found, name), _cards(found), _plot(found, kernels), _table(kernels)))
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{name}: profile</title><style>{style}</style></head>"
        f"<body><main>{body}</main><script>{_SEARCH}</script></body></html>\n"
    )


def _header(found: ModelProfile, name: str) -> str:
    sizes = ", ".join(f"{dim} = {size}" for dim, size in found.sizes.items())
    at = f" at <b>{escape(sizes)}</b>" if sizes else ""
    threads = f"{found.threads} thread{'s' if found.threads > 1 else ''}"
    return f'<h1>{name}</h1><p class="lead">Where the time of a run goes{at}, on {threads}.</p>'


def _cards(found: ModelProfile) -> str:
    spent = sum(row.kernel.seconds for row in found.rows)
    flops = rate_text(total(row.flops for row in found.rows), spent, 1e9)
    moved = rate_text(total(row.bytes for row in found.rows), spent, 1e9)
    memory = memory_bandwidth(found.roof) / 1e9
    cards = (
        ("A run", time_text(found.seconds), "without instruments"),
        ("Its kernels", time_text(spent), f"in {len(found.rows)} calls"),
        ("Arithmetic", f"{flops or '?'} GFLOP/s", f"of {found.roof.peak / 1e9:.0f} in float32"),
        ("Traffic", f"{moved or '?'} GB/s", f"memory gives {memory:.0f}"),
    )
    made = (
        f'<div class="card"><h3>{title}</h3><div class="big">{big}</div>'
        f'<div class="soft">{small}</div></div>'
        for title, big, small in cards
    )
    return f'<div class="cards">{"".join(made)}</div>'


def _plot(found: ModelProfile, kernels: Sequence[Group]) -> str:
    drawing = roofline(found.roof, kernels)
    if not drawing:
        return ""
    return (
        '<h2>Roofline</h2><p class="soft">A dot is a kernel, its area its time. Under the slope '
        "memory is the limit, under the flat roof arithmetic; caches and Winograd\u2019s method "
        f'lift a kernel above.</p><div class="panel scroll">{drawing}</div>'
    )


def _table(kernels: Sequence[Group]) -> str:
    whole = sum(group.seconds for group in kernels) or 1.0
    rows = "".join(_row(group, whole) for group in kernels)
    return (
        '<h2>Kernels</h2><p class="soft">Predicted is the price by which a schedule was picked: of '
        "one core at a nominal clock, with usual sizes for those that only the run knows.</p>"
        '<div class="tools"><input id="search" type="search" '
        'placeholder="kernel, rule or node" aria-label="Search"></div>'
        '<div class="panel scroll"><table id="calls"><thead><tr><th>kernel</th>'
        '<th class="n">time</th><th class="n">predicted</th><th>share</th><th class="n">calls</th>'
        '<th class="n">GFLOP/s</th><th class="n">GB/s</th><th class="n">of roofline</th>'
        "<th>schedule</th>"
        f"<th>nodes of the model</th></tr></thead><tbody>{rows}</tbody></table></div>"
    )


def _row(group: Group, whole: float) -> str:
    share, predicted = group.seconds / whole, group.predicted
    shown = ", ".join(group.nodes[:NODES_SHOWN])
    left = len(group.nodes) - NODES_SHOWN
    more = f" and {left} more" if left > 0 else ""
    figures = (
        rate_text(group.flops, group.seconds, 1e9),
        rate_text(group.bytes, group.seconds, 1e9),
        share_text(group.roofline),
    )
    cells = "".join(f'<td class="n">{figure}</td>' for figure in figures)
    return (
        f"<tr><td><code>{escape(group.name)}</code></td>"
        f'<td class="n">{time_text(group.seconds)}</td>'
        f'<td class="n soft">{"" if predicted is None else time_text(predicted)}</td>'
        f'<td><i class="bar" style="--part:{100 * share:.1f}%"></i>{share:.1%}</td>'
        f'<td class="n">{len(group.calls)}</td>{cells}'
        f'<td>{escape(group.rule)} <code class="soft">{_decision(group)}</code></td>'
        f'<td title="{escape(", ".join(group.nodes))}"><code>{escape(shown)}</code>{more}</td></tr>'
    )


def _decision(group: Group) -> str:
    """What the rule decided, in words."""
    decision = group.calls[0].decision
    return "" if decision is None else escape(brief(decision))
