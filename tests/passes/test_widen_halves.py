"""WidenHalves: sums of half types are kept in float32."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from tvm import relax

from tests.passes.modules import build, operators, run
from tvmext.passes.widen_halves import WidenHalves


@pytest.mark.parametrize("kind, casts", [("float16", 1), ("bfloat16", 1), ("float32", 0)])
def test_products_of_halves(kind: str, casts: int) -> None:
    mod = build(
        [("x", (3, 4), kind), ("w", (4, 5), kind)],
        lambda bb, x, w: bb.emit(relax.op.matmul(x, w)),
    )
    found = operators(WidenHalves()(mod))
    assert found["relax.astype"] == casts and found["relax.matmul"] == 1


@pytest.mark.parametrize("operator", [relax.op.mean, relax.op.sum, relax.op.variance])
def test_sums_of_more_than_float16_can_count(operator: Any) -> None:
    """0.5 in each of 70,000 places: the mean is 0.5, the sum 35,000, and nothing is infinite."""
    mod = build([("x", (1, 70_000), "float16")], lambda bb, x: bb.emit(operator(x, 1)))
    wide = WidenHalves()(mod)
    assert operators(wide)["relax.astype"] == 2
    (result,) = run(wide, np.full((1, 70_000), 0.5, "float16"))
    expected = {"mean": 0.5, "sum": 35_000, "variance": 0}[operator.__name__]
    assert result.dtype == np.float16 and abs(result[0] - expected) <= 16


@pytest.mark.parametrize("native", [False, True])
def test_convolutions_of_bfloat16(native: bool) -> None:
    """Where there are instructions for it a convolution reads it as it is, and sums are float32."""
    mod = build(
        [("x", (1, 3, 8, 8), "bfloat16"), ("w", (4, 3, 3, 3), "bfloat16")],
        lambda bb, x, w: bb.emit(relax.op.nn.relu(bb.emit(relax.op.nn.conv2d(x, w, padding=1)))),
    )
    body = WidenHalves(native)(mod)["main"].body
    values = [binding.value for block in body.blocks for binding in block.bindings]
    (conv,) = (
        v for v in values if getattr(getattr(v, "op", None), "name", "") == "relax.nn.conv2d"
    )
    assert str(conv.args[0].ty.dtype) == ("bfloat16" if native else "float32")
    assert str(conv.ty.dtype) == "float32"
    assert [int(n) for n in conv.attrs.padding] == [1] * 4
