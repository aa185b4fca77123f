"""Norms by group and instance, against NumPy in float64, with means that are large."""

from __future__ import annotations

import numpy as np
import pytest
import tvm
from tvm import relax, tirx

import tvmext
from tests.passes.modules import build
from tvmext.passes.legalize import LEGALIZE

SCALE, OFFSET = np.linspace(1, 2, 12, dtype="float32"), np.linspace(-1, 1, 12, dtype="float32")


def normalized(x: np.ndarray, groups: int) -> np.ndarray:
    rows = x.astype("float64").reshape(len(x), groups, -1)
    deviation = np.sqrt(rows.var(-1, keepdims=True) + 1e-5)
    rows = (rows - rows.mean(-1, keepdims=True)) / deviation
    spread = (1, 12, *[1] * (x.ndim - 2))
    return rows.reshape(x.shape) * SCALE.reshape(spread) + OFFSET.reshape(spread)


def network(groups: int, spatial: list, dtype: str = "float32") -> tvm.IRModule:
    def body(_: relax.BlockBuilder, x: relax.Expr, scale: relax.Expr, offset: relax.Expr):
        axes = list(range(2, 2 + len(spatial)))
        if groups == 12:
            return relax.op.nn.instance_norm(x, scale, offset, 1, axes, 1e-5)
        return relax.op.nn.group_norm(x, scale, offset, groups, 1, axes, 1e-5)

    dims = [tirx.Var(d, "int64") if isinstance(d, str) else d for d in spatial]
    return build([("x", [2, 12, *dims], dtype), ("s", [12], dtype), ("b", [12], dtype)], body)


@pytest.mark.parametrize("spatial", [[7], [5, 6], ["h", "w"], [16, 16]])
@pytest.mark.parametrize("groups", [1, 3, 12])
def test_means_that_are_large(groups: int, spatial: list) -> None:
    sizes = [{"h": 9, "w": 11}.get(d, d) for d in spatial]
    x = (np.random.default_rng(0).standard_normal((2, 12, *sizes)) + 300).astype("float32")
    (got,) = (
        tvmext.compile(network(groups, spatial)).run({"x": x, "s": SCALE, "b": OFFSET}).values()
    )
    np.testing.assert_allclose(got, normalized(x, groups), rtol=2e-4, atol=2e-4)


def test_half_precision_is_summed_in_single() -> None:
    x = (np.random.default_rng(0).standard_normal((2, 12, 64)) + 3).astype("float16")
    compiled = tvmext.compile(network(3, [64], "float16"))
    feed = {"x": x, "s": SCALE.astype("float16"), "b": OFFSET.astype("float16")}
    (got,) = compiled.run(feed).values()
    np.testing.assert_allclose(got, normalized(x, 3), rtol=5e-3, atol=5e-3)


def test_the_regrouping_is_a_view() -> None:
    mod = relax.transform.LegalizeOps(LEGALIZE)(network(3, [8]))
    names = [var.name_hint for var in mod.get_global_vars()]
    assert sorted(name for name in names if name != "main") == ["norm", "view", "view1"]
