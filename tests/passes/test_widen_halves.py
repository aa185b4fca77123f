"""WidenHalves: sums of half types are kept in float32."""

from __future__ import annotations

import pytest
from tvm import relax

from tests.passes.modules import build, operators
from tvmext.passes.widen_halves import WidenHalves


@pytest.mark.parametrize("kind, casts", [("float16", 1), ("bfloat16", 1), ("float32", 0)])
def test_products_of_halves(kind: str, casts: int) -> None:
    mod = build(
        [("x", (3, 4), kind), ("w", (4, 5), kind)],
        lambda bb, x, w: bb.emit(relax.op.matmul(x, w)),
    )
    found = operators(WidenHalves()(mod))
    assert found["relax.astype"] == casts and found["relax.matmul"] == 1
