"""What a comparison found, as plain data for tables and JSON. Times in microseconds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .samples import Noisy, Round, ratio, timing

Figures = dict[str, Any]


def figures(
    rounds: Sequence[Round],
    ours: str,
    overhead: Mapping[str, float] | None = None,
    shares: Mapping[str, float] | None = None,
) -> Figures:
    """{"sides": figures by contender, "ratios": of every other contender to `ours`}.

    A side has "min_us", "median_us", "clean" and "taken" samples, and "noisy" (a reason, or "");
    with `overhead`, the seconds of a call that computes nothing, also "net_us"; with `shares`, the
    part of the time that counts, also "interior_us" of what is net.

    A ratio has "value", "low" and "high" (quartiles), "pairs", and "net" and "interior" where they
    are known; or just "noisy", the reason why there is none.
    """
    names = list(rounds[0]) if rounds else []
    sides = {name: _side(rounds, name, overhead or {}, shares or {}) for name in names}
    rivals = [name for name in names if name != ours and ours in names]
    return {"sides": sides, "ratios": {name: _ratio(rounds, ours, name, sides) for name in rivals}}


def _side(
    rounds: Sequence[Round], name: str, overhead: Mapping[str, float], shares: Mapping[str, float]
) -> Figures:
    found = timing(rounds, name)
    side: Figures = {
        "min_us": found.minimum * 1e6,
        "median_us": found.median * 1e6,
        "clean": found.clean,
        "taken": found.taken,
        "noisy": found.noisy,
    }
    if name in overhead:
        side["net_us"] = (found.median - overhead[name]) * 1e6
        if name in shares:
            side["interior_us"] = side["net_us"] * shares[name]
    return side


def _ratio(rounds: Sequence[Round], ours: str, rival: str, sides: Mapping[str, Figures]) -> Figures:
    found = ratio(rounds, ours, rival)
    if isinstance(found, Noisy):
        return {"noisy": found.reason}
    row: Figures = {
        "value": found.value,
        "low": found.low,
        "high": found.high,
        "pairs": found.pairs,
    }
    for kind in ("net", "interior"):
        mine = sides[ours].get(f"{kind}_us") or 0.0
        # A rival whose share is not known has no edges: it is given the layout it likes.
        other = sides[rival].get(f"{kind}_us") or sides[rival].get("net_us") or 0.0
        if mine > 0 and other > 0:
            row[kind] = other / mine
    return row
