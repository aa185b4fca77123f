"""An explanation as one page of HTML that needs nothing else: no scripts or fonts from anywhere.

Without scripts everything is there; with them the table of operators can be searched.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from html import escape
from importlib.resources import files

from .explanation import FATES, KEPT, Explanation, LeftKernel, Operator
from .prices import prices_part
from .regions import Region
from .svg import svg

OPEN_REGIONS = 2
"""How many regions are unfolded at first."""

HALF = 520
"""Pixels of a drawing that fits beside another."""

SHOWN_NODES = 6
"""How many of a region's nodes are named."""

MINUS = "\u2212"

_ARROW_HEAD = (
    '<svg width="0" height="0" style="position:absolute" aria-hidden="true"><defs>'
    '<marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" '
    'orient="auto"><path d="M0 1 7 4 0 7z" fill="context-stroke"/></marker></defs></svg>'
)
_SEARCH = """
const rows = [...document.querySelectorAll("#operators tbody tr")];
const text = document.querySelector("#search");
const buttons = [...document.querySelectorAll(".tools button")];
let fate = "";
function show() {
  const wanted = text.value.toLowerCase();
  for (const row of rows)
    row.hidden = (fate && row.dataset.fate !== fate)
      || !row.textContent.toLowerCase().includes(wanted);
}
text.addEventListener("input", show);
for (const button of buttons)
  button.addEventListener("click", () => {
    fate = fate === button.value ? "" : button.value;
    for (const each of buttons) each.ariaPressed = each.value === fate;
    show();
  });
"""


def page(found: Explanation) -> str:
    """The whole page."""
    style = files(__package__).joinpath("page.css").read_text(encoding="utf-8")
    body = "".join(
        (
            _header(found),
            _cards(found),
            _fates(found),
            _left(found.ours.movement_kernels_left),
            _regions(found.regions),
            _operators(found),
            prices_part(found.prices),
        )
    )
    name = escape(found.model.rpartition("/")[2])
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{name}: movement</title><style>{style}</style></head>"
        f"<body>{_ARROW_HEAD}<main>{body}</main><script>{_SEARCH}</script></body></html>\n"
    )


def bytes_text(count: int) -> str:
    """``1.5 MB``."""
    value = float(abs(count))
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000 or unit == "GB":
            break
        value /= 1000
    text = f"{value:.0f}" if value >= 100 or unit == "B" else f"{value:.1f}"
    return f"{MINUS if count < 0 else ''}{text} {unit}"


def _header(found: Explanation) -> str:
    sizes = ", ".join(f"{name} = {size}" for name, size in found.sizes.items())
    at = f" at <b>{escape(sizes)}</b>" if sizes else ""
    return (
        f"<h1>{escape(found.model.rpartition('/')[2])}</h1>"
        f'<p class="lead">What becomes of the operators that only move data{at}, '
        "compared with TVM\u2019s own passes.</p>"
        f'<p class="soft mono">{escape(found.target)}</p>'
    )


def _cards(found: Explanation) -> str:
    stock, ours = found.stock, found.ours
    left = len(ours.movement_kernels_left)
    cards = (
        _card(
            "Movement kernels left",
            f"{left} <small>for {ours.movement_operators} operators</small>",
            len(stock.movement_kernels_left),
            left,
            str,
        ),
        _card("Bytes that they move", "", stock.bytes_moved, ours.bytes_moved, bytes_text),
        _card("Bytes of all kernels", "", stock.kernel_bytes, ours.kernel_bytes, bytes_text),
        _card("Planned memory", "", stock.planned_bytes, ours.planned_bytes, bytes_text),
        _card("Kernels", "", stock.kernels, ours.kernels, str),
    )
    return f'<div class="cards">{"".join(cards)}</div>'


def _card(title: str, big: str, theirs: int, mine: int, text: Callable[[int], str]) -> str:
    most = max(theirs, mine, 1)
    change = f" <small>{_change(theirs, mine)}</small>" if theirs != mine and not big else ""
    meter = "".join(
        f'<span style="text-align:left">{who}</span><i class="{kind}" '
        f'style="--part:{100 * count / most:.1f}%;--least:{3 if count else 0}px"></i>'
        f"<span>{text(count)}</span>"
        for who, kind, count in (("TVM", "", theirs), ("tvmext", "ours", mine))
    )
    return (
        f'<div class="card"><h3>{title}</h3><div class="big">{big or text(mine)}{change}</div>'
        f'<div class="meter">{meter}</div></div>'
    )


def _change(theirs: int, mine: int) -> str:
    if not theirs:
        return ""
    percent = 100 * (mine - theirs) / theirs
    return f"{'+' if percent > 0 else MINUS}{abs(percent):.0f} %"


def _fates(found: Explanation) -> str:
    count = found.fates
    if not found.operators:
        return "<h2>Operators</h2><p>No operator of this network only moves data.</p>"
    bar = "".join(f'<i class="{fate}" style="--n:{n}"></i>' for fate, n in count.items() if n)
    legend = "".join(
        f"<li>{_dot(fate)}<b>{n} {fate}</b>: {meaning}</li>"
        for (fate, meaning), n in zip(FATES.items(), count.values())
        if n
    )
    return (
        f"<h2>{len(found.operators)} operators that only move data became</h2>"
        f'<div class="fates">{bar}</div><ul class="legend">{legend}</ul>'
    )


def _left(kernels: Iterable[LeftKernel]) -> str:
    rows = "".join(
        f"<tr>{_code(kernel.kernel)}"
        f'<td class="n">{bytes_text(kernel.bytes)}</td><td class="reason">{escape(kernel.reason)}'
        f"</td>{_code(kernel.detail)}</tr>"
        for kernel in kernels
    )
    if not rows:
        return ""
    return (
        "<h2>Kernels left that only move data</h2>"
        '<p class="soft">Forced: an output has to be a copy of an input. Priced: the copy costs '
        "less than what it saves.</p>"
        '<div class="panel rows"><table><thead><tr><th>Kernel</th><th class="n">Reads and writes'
        f"</th><th>Reason</th><th>From and for</th></tr></thead><tbody>{rows}</tbody></table></div>"
    )


def _regions(regions: Iterable[Region]) -> str:
    shown = "".join(_region(region, k < OPEN_REGIONS) for k, region in enumerate(regions))
    if not shown:
        return ""
    key = (
        ("--move-line", "--move-bg", "movement operator"),
        ("--comp-line", "--comp-bg", "operator or kernel that computes"),
        ("--view", "transparent", "view: no kernel"),
        ("--kept", "color-mix(in srgb, var(--kept) 16%, var(--card))", "kernel that only moves"),
    )
    items = "".join(
        f'<span><i style="border-color:var({line});background:'
        f'{fill if "(" in fill or fill == "transparent" else f"var({fill})"}"></i>{text}</span>'
        for line, fill, text in key
    )
    return (
        "<h2>Before and after</h2>"
        '<p class="soft">The parts of the network in which data is moved. Parts that look alike '
        f'are drawn once.</p><div class="key">{items}</div>{shown}'
    )


def _region(region: Region, opened: bool) -> str:
    times = len(region.nodes)
    count = f"{region.operators} operator{'s' * (region.operators > 1)}"
    left = region.kernels_left
    end = f'<span class="badge">{left} left</span>' if left else "nothing left"
    names = [name for name in dict.fromkeys(region.nodes[0]) if name]
    more = f" and {len(names) - SHOWN_NODES} more" if len(names) > SHOWN_NODES else ""
    listed = ", ".join(f"<code>{escape(name)}</code>" for name in names[:SHOWN_NODES])
    first = "The first of them: " if times > 1 else ""
    drawings = svg(region.before), svg(region.after)
    wide = " wide" * any(drawing.width > HALF for drawing in drawings)
    return (
        f'<details class="region"{" open" * opened}><summary><span class="name">{count}</span>'
        + (f'<span class="times">\u00d7 {times}</span>' if times > 1 else "")
        + f'<span class="soft">{_words(region)}</span><span class="end">{end}</span></summary>'
        f'<div class="pair{wide}"><div><h4>Before</h4><div class="scroll">{drawings[0].text}</div>'
        f'</div><div><h4>After</h4><div class="scroll">{drawings[1].text}</div></div></div>'
        f'<div class="where">{first}{listed}{more}</div></details>'
    )


def _words(region: Region) -> str:
    """The kinds of its movement operators, the first few."""
    kinds = dict.fromkeys(box.label for box in region.before.boxes if box.kind == "movement")
    text = ", ".join(list(kinds)[:4])
    return escape(text + ("\u2026" if len(kinds) > 4 else ""))


def _operators(found: Explanation) -> str:
    if not found.operators:
        return ""
    rows = "".join(map(_operator, found.operators))
    fates = "".join(
        f'<button value="{fate}" aria-pressed="false">{_dot(fate)}{fate}</button>'
        for fate, n in found.fates.items()
        if n
    )
    return (
        '<h2>Every operator</h2><div class="panel"><div class="tools">'
        '<input id="search" type="search" placeholder="Search nodes, operators, kernels" '
        f'aria-label="Search">{fates}</div><div class="rows"><table id="operators"><thead><tr>'
        "<th>Node</th><th>Operator</th><th>Shape</th><th>Became</th><th>In kernel</th>"
        f'<th class="n">Bytes saved</th></tr></thead><tbody>{rows}</tbody></table></div></div>'
    )


def _operator(operator: Operator) -> str:
    kernels = ", ".join(operator.kernels)
    title = f' title="{escape(operator.detail)}"' if operator.fate == KEPT else ""
    saved = bytes_text(operator.bytes_saved) if operator.bytes_saved else ""
    return (
        f'<tr data-fate="{operator.fate}">{_code(operator.node)}'
        f"<td>{escape(operator.operator)}</td><td>{escape(operator.shape)}</td>"
        f'<td class="fate"{title}>{_dot(operator.fate)}{operator.fate}</td>'
        f'{_code(kernels)}<td class="n">{saved}</td></tr>'
    )


def _code(text: str) -> str:
    """A cell of names, which may break anywhere."""
    return f'<td><span class="mono">{escape(text)}</span></td>'


def _dot(fate: str) -> str:
    return f'<span class="dot {fate}"></span>'
