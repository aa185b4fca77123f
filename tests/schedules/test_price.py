"""Prices as functions of sizes."""

from __future__ import annotations

import numpy as np
import pytest
import tvm
from tvm import tirx
from tvm.relax import op, transform

from tests.passes.modules import build
from tvmext.arch import FAMILIES
from tvmext.schedules.memory import Memory
from tvmext.schedules.price import cycles
from tvmext.schedules.rule import Kernel

ARCH = FAMILIES["x86-64-v3"]
N = tirx.Var("n", "int64")


def product(rows: object) -> Kernel:
    """Rows of two tensors side by side, times a matrix."""
    shapes = [
        ("x", (rows, 32), "float32"),
        ("y", (rows, 32), "float32"),
        ("w", (64, 96), "float32"),
    ]
    mod = build(shapes, lambda bb, x, y, w: bb.emit(op.matmul(bb.emit(op.concat([x, y], 1)), w)))
    passes = [transform.LegalizeOps(), transform.AnnotateTIROpPattern()]
    mod = tvm.transform.Sequential([*passes, transform.FuseOps(), transform.FuseTIR()])(mod)
    funcs = [func for _, func in mod.functions_items() if isinstance(func, tirx.PrimFunc)]
    return Kernel("", max(funcs, key=lambda func: len(func.params)), frozenset())


def test_all_sizes_at_once() -> None:
    sizes = [1, 7, 64, 1000, 100000]
    free = product(N)
    together = cycles(free, Memory(ARCH, {"n": np.array(sizes)}))
    apart = [float(cycles(free, Memory(ARCH, {"n": size}))) for size in sizes]
    np.testing.assert_allclose(together, apart)
    fixed = [float(cycles(product(size), Memory(ARCH))) for size in sizes]
    np.testing.assert_allclose(together[1:], fixed[1:])


def test_dims_that_data_decide_are_usual() -> None:
    usual = cycles(product(64), Memory(ARCH))
    assert cycles(product(N), Memory(ARCH, {"m": 1000})) == pytest.approx(usual)


def test_sizes_that_are_computed_once_cost_nothing() -> None:
    """The divisions are in the shapes, not in what is done for every element."""
    found = cycles(product((N + 3) // 4 * 2), Memory(ARCH, {"n": 509}))
    assert found == pytest.approx(cycles(product(N), Memory(ARCH, {"n": 256})))
