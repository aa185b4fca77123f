"""The statistics of a night on samples with known slowdowns: quiet nights are quiet, and a tenth is
found. No clock is read."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest

from tools.nightly.history import Result
from tools.nightly.judge import slowdowns
from tools.nightly.stats import LEAST, REPEATS, SUSPECT, compare, holm, independent, signed_rank

CASES, FAMILIES, PAIRS = 40, 2, 25
NOISE = (0.003, 0.01, 0.01, 0.03)


def samples(
    draw: np.random.Generator, slowdown: float = 0.0, noise: float = 0.02, bias: float = 0.01
) -> list[float]:
    """ln(new / old) of one process: noise, outliers, neighbours that are alike, and a bias that the
    process has from where its memory lies."""
    values = draw.normal(0, noise, PAIRS)
    values[1:] = 0.9 * values[1:] + 0.4 * values[:-1]
    values += draw.normal(0, bias) + math.log1p(slowdown)
    hit = draw.random(PAIRS) < 0.05
    return list(values + hit * draw.exponential(0.3, PAIRS) * draw.choice([-1, 1], PAIRS))


def night(draw: np.random.Generator, slow: Sequence[str] = (), by: float = 0.0) -> list[Result]:
    """The results of a night as `measure.checked` makes them: what is suspicious is repeated."""
    results = []
    for number in range(CASES):
        result = Result(f"ops/{number}", "passed")
        noise = NOISE[number % len(NOISE)]
        for what in ("run", *(f"rule{k}" for k in range(FAMILIES))):
            slowdown = by if what in slow else 0.0
            result.comparisons[what] = compare(samples(draw, slowdown, noise))
            if result.comparisons[what].p < SUSPECT:
                again = [compare(samples(draw, slowdown, noise)) for _ in range(REPEATS)]
                result.again[what] = again
        results.append(result)
    return results


def test_ten_quiet_nights_raise_no_alarm() -> None:
    draw = np.random.default_rng(1)
    assert [alarm for _ in range(10) for alarm in slowdowns(night(draw))] == []


def test_a_tenth_of_one_family_is_found_and_named() -> None:
    draw = np.random.default_rng(2)
    found = slowdowns(night(draw, slow=["rule1"], by=0.10))
    assert {alarm.what for alarm in found} == {"rule1"}
    quiet = {f"ops/{number}" for number in range(CASES) if NOISE[number % len(NOISE)] < 0.02}
    assert {alarm.name for alarm in found} >= quiet
    assert "kernels of rule1 take" in found[0].detail


def test_without_repetition_there_is_no_alarm() -> None:
    """What a fresh process does not show again was where memory lay."""
    slow, quiet = ([x + 0.1 for x in np.linspace(-0.01, 0.01, PAIRS)], [0.0] * PAIRS)
    result = Result("ops/a", "passed", comparisons={"run": compare(slow)})
    assert slowdowns([result]) == []
    result.again = {"run": [compare(slow), compare(quiet)]}
    assert slowdowns([result]) == []
    result.again = {"run": [compare(slow), compare(slow)]}
    assert [alarm.what for alarm in slowdowns([result])] == ["run"]


def test_a_run_is_named_after_the_family_that_adds_the_most() -> None:
    slow = compare([x + 0.1 for x in np.linspace(-0.01, 0.01, PAIRS)])
    families = {"ours": {"conv": 95.0, "gemm": 40.0}, "base": {"conv": 94.0, "gemm": 20.0}}
    result = Result("zoo/a", "passed", comparisons={"run": slow}, families=families)
    result.again = {"run": [slow, slow]}
    (alarm,) = slowdowns([result])
    assert alarm.what == "gemm"
    assert alarm.detail.startswith("a run takes 10.5 % longer")


@pytest.mark.parametrize("count", [7, 12, 25, 60])
def test_the_rank_test_is_wilcoxons(count: int) -> None:
    wilcoxon = pytest.importorskip("scipy.stats").wilcoxon
    for shift in (-0.5, 0.0, 0.5, 2.0):
        values = np.random.default_rng([count]).normal(shift, 1, count)
        expected = wilcoxon(values, alternative="greater", method="exact").pvalue
        assert signed_rank(list(values)) == pytest.approx(expected, rel=1e-6)


def test_the_least_effect_that_is_seen_is_seen() -> None:
    """Nine times in ten, by simulation."""
    draw = np.random.default_rng(3)
    seen = compare(list(draw.normal(0, 0.02, 400))).smallest
    assert LEAST < seen < 0.04
    noise, pairs = 0.02, 25
    one = compare(list(draw.normal(0, noise, pairs)))
    told = math.expm1(math.log1p(LEAST) + (one.smallest - LEAST) * noise / one.spread)
    hits = [
        compare(list(draw.normal(math.log1p(told), noise, pairs))).p < SUSPECT for _ in range(200)
    ]
    assert np.mean(hits) > 0.85


def test_many_pairs_are_counted_by_the_normal_law() -> None:
    values = list(np.random.default_rng(5).normal(0.2, 1, 61))
    assert signed_rank(values) == pytest.approx(signed_rank(values[:-1]), rel=0.6)


def test_neighbours_that_are_alike_are_not_many_samples() -> None:
    draw = np.random.default_rng(4)
    steps = draw.normal(0, 1, 200)
    assert len(independent(list(steps))) == 200
    assert len(independent(list(np.cumsum(steps)))) < 60


def test_few_or_no_pairs_tell_nothing() -> None:
    assert compare([]).noisy and compare([]).p == 1
    assert compare([1.0] * 6).noisy and compare([1.0] * 6).smallest == math.inf
    assert compare([0.2] * 7).p < 0.01


def test_holm() -> None:
    assert holm({"a": 0.004, "b": 0.02, "c": 0.001}, 0.01) == ["c", "a"]
    assert holm({"a": 0.0051, "b": 0.0051}, 0.01) == []
