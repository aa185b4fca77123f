"""What kernels are predicted to cost, as a part of the page: the pick, the runners-up, variants."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from typing import TYPE_CHECKING

from tvmext.schedules.brief import brief, spans_text

if TYPE_CHECKING:
    from tvmext.schedules.prices import Candidate, KernelPrices


def prices_part(prices: Sequence[KernelPrices]) -> str:
    """A table of the kernels, the dearest first, and one of those that have variants."""
    if not prices:
        return ""
    whole = sum(map(_of_a_run, prices)) or 1.0
    kernels = "".join(_kernel(one, _of_a_run(one) / whole) for one in prices)
    return (
        "<h2>Predicted prices</h2>"
        '<p class="soft">Microseconds of a call on one core, as the cost model has them: of the '
        "decision that is taken and of the next best, which say what they do differently. The bar "
        "is the share of a run.</p>"
        '<div class="panel rows"><table id="prices"><thead><tr><th class="n">\u00b5s</th>'
        f"<th>Decision</th></tr></thead>{kernels}</table></div>{_variants(prices)}"
    )


def _of_a_run(one: KernelPrices) -> float:
    return (one.pick.seconds or 0.0) * one.calls


def _kernel(one: KernelPrices, share: float) -> str:
    """The rows of a kernel: its name, the pick, and the runners-up."""
    calls = f"{one.calls} call{'s' * (one.calls != 1)}"
    why = f'<div class="soft">{escape(one.why)}</div>' if one.why else ""
    others = "".join(
        f'<tr class="soft"><td class="n">{_time(other)}</td><td>or {_words(other, one.pick)}</td>'
        "</tr>"
        for other in one.others
    )
    return (
        f'<tbody><tr><td colspan="2"><i class="bar" style="--part:{100 * share:.1f}%"></i>'
        f'<span class="mono">{escape(one.kernel)}</span> '
        f'<span class="soft">{escape(one.rule)}, {calls}, {share:.1%}</span></td></tr>'
        f'<tr><td class="n">{_time(one.pick)}</td><td>{_words(one.pick)}{why}</td></tr>'
        f"{others}</tbody>"
    )


def _time(one: Candidate) -> str:
    if one.seconds is None:
        return "-"
    us = one.seconds * 1e6
    return f"{us:,.0f}" if us >= 1000 else f"{us:.4g}"


def _words(one: Candidate, beside: Candidate | None = None) -> str:
    text = brief(one.decision, beside.decision if beside else None)
    return f'<span class="mono">{escape(text)}</span>'


def _variants(prices: Iterable[KernelPrices]) -> str:
    rows = "".join(
        f'<tr><td><span class="mono">{escape("" if place else one.kernel)}</span></td>'
        f"<td>{escape(variant.variant)}</td><td>{escape(variant.size)}</td>"
        f"<td>{escape(spans_text(variant.spans))}</td></tr>"
        for one in prices
        for place, variant in enumerate(one.chosen)
    )
    if not rows:
        return ""
    return (
        "<h2>Variants of kernels</h2>"
        '<p class="soft">Sizes that are known at run time only: which variant runs where, up to '
        '512.</p><div class="panel rows"><table><thead><tr><th>Kernel</th><th>Runs</th><th>At</th>'
        f"<th>Sizes</th></tr></thead><tbody>{rows}</tbody></table></div>"
    )
