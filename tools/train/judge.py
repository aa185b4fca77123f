"""How good a model's picks are, on workloads that it has not seen.

top-k is the latency of the best candidate over that of the best among the model's first k (TenSet,
TLP); "pick" the same for what `CostModel.pick` takes, which may stay with the analytic choice.
"pairwise" is the share of pairs of candidates, more than 2 % apart, that are in the right order.
Of these "told" are those whose order the measurements tell: the medians lie further apart than both
differ from session to session. The same follows for pairs more than 5 % apart, and for "far pairs",
which are further apart than what is measured again may be.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tvmext.schedules.cost.model import CostModel

from .data import Data, families

APART = (0.02, 0.05, 0.1)
"""Logarithms of times by which pairs are apart that are counted: within the last nine tenths of the
candidates are that are measured again in another process, by other memory."""

KS = (1, 5)


@dataclass(frozen=True)
class Verdict:
    """Geometric means over workloads; `pairs` are shares of the pairs that are `APART`, and then of
    those that are told from each other."""

    workloads: int
    top: tuple[float, ...]
    pick: float
    analytic: float
    worst: float
    pairs: tuple[float, ...]
    analytic_pairwise: float
    told_of: float
    """The share of pairs that are told from each other."""

    @property
    def pairwise(self) -> float:
        return self.pairs[0]

    @property
    def told(self) -> float:
        return self.pairs[-1]

    @property
    def far_pairs(self) -> float:
        return self.pairs[-2]


def judge(data: Data, models: Sequence[tuple[CostModel, np.ndarray]]) -> dict[str, Verdict]:
    """By family, and "all"; each model for the rows that were held out from it."""
    found: dict[str, list[tuple[float, ...]]] = {}
    names = {data.family[rows[0]]: name for name, rows in families(data)}
    for model, rows in models:
        held = data.where(rows)
        for own in held.workloads():
            # The rule's own choice first, as `CostModel` wants it.
            one = held.where(own[np.argsort(~held.picked[own], kind="stable")])
            found.setdefault(names[one.family[0]], []).append(_workload(one, model))
    found["all"] = [row for rows in found.values() for row in rows]
    return {name: _verdict(rows) for name, rows in found.items()}


def _workload(one: Data, model: CostModel) -> tuple[float, ...]:
    best, prices = one.seconds.min(), model.seconds(one.terms)
    order = np.argsort(prices, kind="stable")
    tops = [best / one.seconds[order[:k]].min() for k in KS]
    pick = best / one.seconds[model.pick(one.terms)]
    found = np.log(one.seconds)
    distance = np.abs(found[:, None] - found[None, :])
    told = distance > (one.apart[:, None] + one.apart[None, :]) / 2
    kinds = [*(distance > apart for apart in APART), told & (distance > APART[0])]
    analytic_right, _ = _pairs(one.terms.seconds, found, kinds[0])
    rights, counts = zip(*(_pairs(prices, found, kind) for kind in kinds))
    return (*tops, pick, best / one.seconds[0], analytic_right, *rights, *counts)


def _pairs(prices: np.ndarray, times: np.ndarray, counted: np.ndarray) -> tuple[float, int]:
    """Of the pairs that are `counted` those in the right order, and all; a tie is half right."""
    counted = np.triu(counted, 1)
    asked = np.sign(prices[:, None] - prices[None, :])
    true = np.sign(times[:, None] - times[None, :])
    return float(((asked == true) + 0.5 * (asked == 0))[counted].sum()), int(counted.sum())


def _verdict(rows: list[tuple[float, ...]]) -> Verdict:
    table = np.array(rows)
    count = len(KS)
    analytic_right, *sums = table[:, count + 2 :].sum(axis=0)
    rights, pairs = np.split(np.array(sums), 2)
    return Verdict(
        len(rows),
        tuple(_mean(table[:, k]) for k in range(count)),
        _mean(table[:, count]),
        _mean(table[:, count + 1]),
        float(table[:, count].min()),
        tuple((rights / np.maximum(pairs, 1)).tolist()),
        float(analytic_right / max(pairs[0], 1)),
        float(pairs[-1] / max(pairs[0], 1)),
    )


def _mean(values: np.ndarray) -> float:
    return float(np.exp(np.log(values).mean()))


HEAD = (
    "family",
    "workloads",
    *(f"top-{k}" for k in KS),
    "pick",
    "analytic",
    "worst pick",
    "pairwise",
    "analytic",
    "> 5 %",
    "far pairs",
    "told",
    "told / pairs",
)


def text(verdicts: dict[str, Verdict]) -> str:
    """A table in Markdown."""
    lines = [f"| {' | '.join(HEAD)} |", "|---" * len(HEAD) + "|"]
    for name, v in verdicts.items():
        numbers = (
            *v.top,
            v.pick,
            v.analytic,
            v.worst,
            v.pairwise,
            v.analytic_pairwise,
            *v.pairs[1:],
            v.told_of,
        )
        cells = [name, str(v.workloads), *(f"{n:.3f}" for n in numbers)]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)
