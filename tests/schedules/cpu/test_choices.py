"""Whatever a cost model chooses among the candidates of a rule computes the same."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from tvm import relax

from tests.schedules.cpu.kernels import ARCH, fused, kernel, normal, run
from tests.schedules.cpu.test_attention import PLAIN, heads, made
from tests.schedules.cpu.test_conv import nhwc
from tvmext.schedules.choices import Priced
from tvmext.schedules.cost.model import Analytic
from tvmext.schedules.cost.terms import Terms
from tvmext.schedules.cpu import RULES
from tvmext.schedules.cpu.choices import choices
from tvmext.schedules.layout import relayout
from tvmext.schedules.rule import Declined, Kernel

op = relax.op
CHOICES = choices((2, 4))
COUNT = 4
"""Candidates of a kernel that are compiled, from all over their list."""

ATTENTION = heads(1, 2, 21, 45, 32)
NORM = [normal(23, 200), normal(200, seed=1), normal(200, seed=2)]


def norm(x: relax.Expr, scale: relax.Expr, shift: relax.Expr) -> relax.Expr:
    return op.nn.layer_norm(x, scale, shift, [-1])


CASES: dict[str, tuple[Callable[..., Kernel], list[np.ndarray], list[int]]] = {
    "gemm": (lambda *x: kernel(op.matmul, *x), [normal(61, 40), normal(40, 72, seed=1)], [1]),
    "gemm, packed": (
        lambda *x: kernel(op.matmul, *x),
        [normal(2, 14, 33), normal(2, 33, 64, seed=1)],
        [],
    ),
    "conv": (
        lambda *x: kernel(nhwc(padding=1), *x),
        [normal(1, 9, 11, 24), normal(48, 3, 3, 24, seed=1)],
        [1],
    ),
    "conv, groups": (
        lambda *x: kernel(nhwc(padding=1, groups=4), *x),
        [normal(1, 8, 9, 16), normal(32, 3, 3, 4, seed=1)],
        [1],
    ),
    "depthwise": (
        lambda *x: kernel(nhwc(padding=1, groups=40), *x),
        [normal(1, 17, 19, 40), normal(40, 3, 3, 1, seed=1)],
        [1],
    ),
    "attention": (lambda *x: made(PLAIN, *(shape for shape, _ in x)), ATTENTION, []),
    "normalization": (lambda *x: kernel(norm, *x), NORM, []),
    "reduction": (lambda *x: kernel(lambda x: op.max(x, 1), *x), [normal(9, 300)], []),
    "elementwise": (lambda *x: kernel(op.tanh, *x), [normal(9, 301)], []),
}


class Nth:
    """A model that takes the candidate at a share of their list."""

    def __init__(self, share: float) -> None:
        self.share = share

    def seconds(self, terms: Terms) -> np.ndarray:
        return terms.seconds

    def pick(self, terms: Terms) -> int:
        return int(self.share * (terms.count - 1))


def described(name: str) -> tuple[Kernel, Any, Any]:
    """The kernel of a case, its rule, and its workload."""
    build, arrays, weights = CASES[name]
    made = build(*((x.shape, "float32") for x in arrays))
    made = replace(made, constant_args=frozenset(weights))
    for rule in RULES:
        workload = rule.match(made)
        if not isinstance(workload, Declined):
            assert rule.name == name.partition(",")[0]
            return made, rule, workload
    raise AssertionError


@pytest.mark.parametrize("name", CASES)
def test_every_candidate_computes_the_same(name: str) -> None:
    kernel, rule, workload = described(name)
    _, arrays, _ = CASES[name]
    expected = None
    for share in np.linspace(0, 1, COUNT):
        priced = Priced(rule, CHOICES[rule.name], Nth(share))
        result = priced.apply(kernel, workload, priced.choose(workload, ARCH), ARCH)
        values = {
            f"x{i}": relayout(x, result.layouts[i]) if i in result.layouts else x
            for i, x in enumerate(arrays)
        }
        (found,) = run(result.func, values, ARCH)
        expected = found if expected is None else expected
        np.testing.assert_allclose(found, expected, rtol=2e-4, atol=2e-4)


@pytest.mark.parametrize("name", CASES)
def test_terms_describe_all_candidates(name: str) -> None:
    _, rule, workload = described(name)
    listed = CHOICES[rule.name]
    decisions = listed.candidates(workload, ARCH)
    terms = listed.terms(workload, decisions, ARCH)
    assert decisions[0] == rule.choose(workload, ARCH) or rule.name == "conv"
    assert len(set(decisions)) == len(decisions) == terms.count
    assert 1 < terms.count < 120
    assert (terms.column("cycles") > 0).all()
    columns = {column: tuple(terms.column(column)) for column in terms.columns}
    seen = set(zip(*columns.values()))
    assert len(seen) == len(decisions), "two candidates look the same"


def test_the_analytic_model_leaves_every_choice_to_its_rule() -> None:
    _, rule, workload = described("gemm")
    priced = Priced(rule, CHOICES[rule.name], Analytic())
    assert priced.choose(workload, ARCH) == rule.choose(workload, ARCH)


@pytest.mark.parametrize("shape", [("m", 40), ("m", "k")])
def test_sizes_that_are_not_known(shape: Sequence[Any]) -> None:
    made = fused(op.matmul, (shape, "float32"), ((shape[1], 48), "float32"))[0]
    found = Kernel("kernel", made, frozenset([1]))
    rule = next(rule for rule in RULES if rule.name == "gemm")
    workload = rule.match(found)
    listed = CHOICES["gemm"]
    decisions = listed.candidates(workload, ARCH)
    terms = listed.terms(workload, decisions, ARCH)
    assert terms["free"] == sum(isinstance(dim, str) for dim in shape)
    for decision in decisions[:: max(1, len(decisions) // 3)]:
        result = rule.apply(found, workload, decision, ARCH)
        x, w = normal(13, 40), normal(40, 48, seed=1)
        packed = relayout(w, result.layouts[1]) if 1 in result.layouts else w
        (output,) = run(result.func, {"x0": x, "x1": packed}, ARCH)
        np.testing.assert_allclose(output, x @ w, rtol=1e-4, atol=1e-4)
