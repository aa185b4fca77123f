"""Masks that only the run knows: steps of keys that they hide are skipped, results are the same."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest

from tests.schedules.cpu.test_attention import MASKED, PLAIN, SCALE, heads
from tvmext.arch.cuda import from_name
from tvmext.passes.attention import Band, Form, Step
from tvmext.schedules.cuda import attention_mask
from tvmext.schedules.cuda.attention import FusedAttention, Workload
from tvmext.schedules.cuda.attention_choice import Decision, Sizes, candidates, choose

from .device import IS_GPU
from .kernels import ARCH, ORDERS, RACES, machine_code, runs, source
from .test_attention import compare, made, scheduled, without_barrier

LOWEST = np.finfo("float32").min
ADDED = replace(PLAIN, extras=((0, None, 2, 3),), steps=MASKED)
CHOSEN = replace(
    PLAIN,
    extras=((0, None, 2, 3),),
    steps=(SCALE, Step("relax.where", (0, None, -np.inf))),
)
HALVES = Decision(16, 32, 16, 2, True)
FLOATS = Decision(16, 32, 8, 3, False)


def seen_by(rows: int, keys: int) -> dict[str, np.ndarray]:
    """Masks of 2 batches, by what they are."""
    i, j = np.arange(rows)[:, None], np.arange(keys)
    both = {
        "causal": j <= i + keys - rows,
        "window": (j >= i) & (j < i + 9),
        "the end": j >= np.where(i < 0, 0, keys - 5),
        "all": j >= 0 * i,
        "every 64th": (j + 0 * i) % 64 == 3,
    }
    return {name: np.stack([one, j < 7 + 0 * i])[:, None] for name, one in both.items()}


def function(
    form: Form,
    arrays: Sequence[np.ndarray],
    plan: Decision,
    skips: bool = True,
    dims: Sequence[Any] | None = None,
) -> Any:
    rule = FusedAttention(ARCH)
    kernel = made(form, arrays, dims)
    workload = rule.match(kernel)
    assert isinstance(workload, Workload)
    assert workload.sizes.masked
    return rule.apply(kernel, workload, replace(plan, skips=skips), ARCH).func


@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize("how", ["added", "lowest", "chosen"])
def test_results_are_those_of_all_steps(dtype: str, how: str) -> None:
    """To the last bit; NaN among the values of steps that are skipped does no harm."""
    q, k, v = (x.astype(dtype) for x in heads(2, 2, 40, 160, 16))
    form = replace(CHOSEN if how == "chosen" else ADDED, dtype=dtype)
    hidden = LOWEST if how == "lowest" else -np.inf
    masks = seen_by(40, 160)
    if how != "chosen":
        masks = {name: np.where(seen, 0, hidden).astype("float32") for name, seen in masks.items()}
    plan = HALVES if dtype == "float16" else FLOATS
    arrays = [q, k, v, masks["all"]]
    given = [({f"x{i}": x for i, x in enumerate((q, k, v, m))}, 7) for m in masks.values()]
    skipping = function(form, arrays, plan)
    every = runs(function(form, arrays, plan, skips=False), given)
    for (few,), (all_,) in zip(runs(skipping, given), every, strict=True):
        assert np.isfinite(all_).all()
        np.testing.assert_array_equal(few, all_)
    bad = v.copy()
    bad[:, :, 32:] = np.nan
    bad[0, :, 128:] = v[0, :, 128:]
    ends = [({**one, "x2": bad}, order) for one, _ in given[2:3] for order in ORDERS]
    for (result,) in runs(skipping, ends):
        assert np.isfinite(result).all()


@pytest.mark.parametrize("zero_for_nan", [False, True])
@pytest.mark.parametrize("hidden", [-np.inf, LOWEST])
def test_rows_that_see_nothing(hidden: float, zero_for_nan: bool) -> None:
    """Of one tile some, of another all; the masks are all that their softmax has."""
    mask = np.full((1, 1, 40, 150), hidden, "float32")
    mask[:, :, 3, 40:50] = mask[:, :, 30, :] = 0
    arrays = [*heads(1, 1, 40, 150, 16), mask]
    form = replace(ADDED, zero_for_nan=zero_for_nan)
    with np.errstate(invalid="ignore"):
        compare(form, function(form, arrays, FLOATS), [arrays])
        halves = [x.astype("float16") for x in arrays[:3]] + [mask]
        form = replace(form, dtype="float16")
        compare(form, function(form, halves, HALVES), [halves])


def test_parts_of_the_keys() -> None:
    """A part may have nothing to do at all."""
    seen = seen_by(3, 700)["window"]
    arrays = [*heads(2, 1, 3, 700, 32), np.where(seen, 0, -np.inf).astype("float32")]
    halves = [x.astype("float16") for x in arrays]
    plan = replace(HALVES, blocks=99)
    form = replace(ADDED, dtype="float16")
    compare(form, function(form, halves, plan), [halves], (*ORDERS, *RACES))


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_free_sizes(dtype: str) -> None:
    form = replace(ADDED, dtype=dtype)
    sizes = [(1, 33, 131), (2, 5, 64), (1, 1, 300), (1, 4, 0)]
    cases = [
        [*(x.astype(dtype) for x in heads(b, 1, s, t, 16)), mask]
        for b, s, t in sizes
        for mask in [np.where(seen_by(s, t)["causal"][:b], 0, -np.inf).astype("float32")]
    ]
    dims = [("b", 1, "s", 16), ("b", 1, "t", 16), ("b", 1, "t", 16), ("b", 1, "s", "t")]
    plan = HALVES if dtype == "float16" else FLOATS
    result = function(form, cases[0], plan, dims=dims)
    with np.errstate(invalid="ignore"):
        compare(form, result, cases)


def test_more_steps_than_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    """A bit stands for several steps."""
    monkeypatch.setattr(attention_mask, "MASK_STEPS", 32)
    seen = seen_by(20, 1130)
    arrays = [x.astype("float16") for x in heads(2, 1, 20, 1130, 16)]
    cases = [
        [*arrays, np.where(seen[name], 0, -np.inf).astype("float32")]
        for name in ("causal", "window", "the end", "every 64th")
    ]
    form = replace(ADDED, dtype="float16")
    compare(form, function(form, cases[0], HALVES), cases)


@pytest.mark.skipif(IS_GPU, reason="code is not mutated on a GPU")
@pytest.mark.parametrize("number", [0, 1, 2])
def test_a_missing_barrier_is_noticed(number: int) -> None:
    """Between bits that are cleared, rows that see nothing, steps that are seen, and their use."""
    mask = np.where(seen_by(64, 640)["every 64th"][:1], 0, LOWEST).astype("float32")
    if number < 2:
        mask[:, :, 63] = LOWEST
    arrays = [x.astype("float16") for x in heads(1, 1, 64, 640, 16)]
    form = replace(ADDED, dtype="float16")
    code = function(form, [*arrays, mask], replace(HALVES, rows=64))
    given = {f"x{i}": x for i, x in enumerate((*arrays, mask))}
    ((right,),) = runs(code, [(given, 0)])
    orders = [(given, order) for order in (*RACES, *ORDERS)]
    wrong = runs(code, orders, partial(without_barrier, number))
    with suppress(RuntimeError):  # the emulator's word for what must not be
        assert not all(np.allclose(one, right, rtol=1e-2, atol=1e-2) for (one,) in wrong)


def test_what_has_no_such_mask_looks_for_none() -> None:
    steps = (SCALE, Step("relax.add", (None, Band(3, 0.0, -np.inf))))
    for form in (PLAIN, replace(PLAIN, steps=steps)):
        arrays = heads(1, 1, 40, 160, 16)
        rule = FusedAttention(ARCH)
        kernel = made(form, arrays)
        workload = rule.match(kernel)
        assert isinstance(workload, Workload)
        assert not workload.sizes.masked
        code = source(rule.apply(kernel, workload, FLOATS, ARCH).func)
        assert "tvmext_bits_set" not in code


def test_choice() -> None:
    """It takes a few steps to pay."""
    long = Sizes(64, 1024, 1024, 64, 64, "float16", True, masked=True)
    for one, skips in (
        (long, True),
        (replace(long, rows=1), False),
        (replace(long, keys=64), False),
    ):
        plan = choose(one, ARCH)
        assert isinstance(plan, Decision)
        assert plan.skips == skips
    assert not any(one.skips for one in candidates(replace(long, masked=False), ARCH))


@pytest.mark.parametrize("how", ["added", "chosen"])
def test_machine_code(how: str) -> None:
    """Vectors of the mask, truth values too; no register in memory."""
    types = {"added": "float16", "chosen": "bool"}
    arrays = [np.zeros((1, 8, 1024, 64), "float16")] * 3
    mask = np.zeros((1, 1, 1024, 1024), types[how])
    form = replace(CHOSEN if how == "chosen" else ADDED, dtype="float16")
    for machine in (ARCH, from_name("sm_90a")):
        result, selection = scheduled(made(form, [*arrays, mask]), machine)
        assert selection.rule == "attention"
        assert selection.decision.skips
        code = source(result, machine)
        assert "tvmext_load_16" in code
        assert f"tvmext_load_{4 if how == 'added' else 2}" in code
        words = machine_code(result, machine)
        assert any(one.startswith("LDG.E.128") for one in words), words
        assert any(one.startswith("HMMA") for one in words)
        assert not {one for one in words if one.startswith(("LDL", "STL"))}
