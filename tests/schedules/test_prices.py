"""Prices of kernels: of the pick, of the next best, and which variant runs at which size."""

from __future__ import annotations

import numpy as np
from tvm import tirx
from tvm.relax import op, transform

from tests.passes.modules import build
from tvmext.arch import FAMILIES
from tvmext.arch.cuda import from_name
from tvmext.schedules.cost.model import Analytic
from tvmext.schedules.cpu import RULES
from tvmext.schedules.cpu.choices import choices
from tvmext.schedules.cpu.chosen import SCANNED, chosen
from tvmext.schedules.cuda import choices as cuda
from tvmext.schedules.cuda import rules as cuda_rules
from tvmext.schedules.dispatch import mixture
from tvmext.schedules.prices import prices_of
from tvmext.schedules.select import by_rule

ARCH = FAMILIES["x86-64-v3"]


def prices(rows: object, cols: object = 64, depth: int = 32) -> tuple:
    shapes = [("x", (rows, depth), "float32"), ("y", (depth, cols), "float32")]
    mod = transform.LegalizeOps()(build(shapes, lambda bb, x, y: bb.emit(op.matmul(x, y))))
    return prices_of(mod, ARCH, RULES, choices(), Analytic(), by_rule)


def test_the_pick_and_the_next_best() -> None:
    (one,) = prices(64)
    assert (one.rule, one.calls, one.chosen, one.why) == ("gemm", 1, (), "")
    assert one.listed > len(one.others) == 3
    times = [other.seconds for other in one.others]
    assert times == sorted(times) and all(seconds > 0 for seconds in times)
    assert one.pick.decision not in [other.decision for other in one.others]


def test_variants_share_the_sizes() -> None:
    """Of a product of two inputs, packed or not: every size has exactly one variant."""
    (one,) = prices(tirx.Var("n", "int64"), tirx.Var("m", "int64"), depth=2048)
    assert {variant.size for variant in one.chosen} == {"rows", "columns"}
    for size in ("rows", "columns"):
        taken = np.zeros(SCANNED + 2, int)
        for variant in one.chosen:
            for low, high in variant.spans if variant.size == size else ():
                taken[low : high + 1] += 1
        assert (taken[1:-1] == 1).all()


def test_a_gpu_prices_few_and_many_rows_by_the_kernel_for_many() -> None:
    arch = from_name("sm_80")
    shapes = [("x", (tirx.Var("n", "int64"), 512), "float16"), ("y", (512, 512), "float16")]
    mod = transform.LegalizeOps()(build(shapes, lambda bb, x, y: bb.emit(op.matmul(x, y))))
    (one,) = prices_of(mod, arch, cuda_rules(arch), cuda.choices(), Analytic(), by_rule)
    assert one.rule == "mma" and {"few", "many"} <= set(one.pick.decision)
    assert one.pick.seconds and one.pick.seconds > 0


def test_heights_are_those_of_the_kernel() -> None:
    class Decision:
        heights = mixture(range(1, 9), lambda height: 10.0 + height)

    found = chosen(None, Decision(), ARCH)
    assert found[0].variant == "tiles of 8"
    assert found[0].spans[-1][1] == SCANNED and found[-1].spans[0][0] == 1
