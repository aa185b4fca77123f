"""Kernels that ptxas makes spill unless told that few blocks on a multiprocessor are enough."""

from __future__ import annotations

import pytest
from tvm import te, topi

from tests.schedules.cpu.kernels import composed
from tvmext.arch.cuda import from_name

from .kernels import machine_code, scheduled


@pytest.mark.parametrize(
    ("arch", "m", "n", "k"),
    [("sm_90a", 784, 240, 40), ("sm_90a", 12544, 96, 16), ("sm_80", 12544, 96, 16)],
)
def test_small_blocks_that_have_much_to_hold(arch: str, m: int, n: int, k: int) -> None:
    """Of 64 threads with a tile of 32 x 32 or more per warp and an epilogue that branches."""

    def build(x: te.Tensor, w: te.Tensor, bias: te.Tensor) -> te.Tensor:
        y = topi.add(topi.nn.matmul(x, w, transpose_b=True), bias)
        return topi.multiply(y, topi.sigmoid(y))

    made = composed(build, ((m, k), "float16"), ((n, k), "float16"), ((n,), "float16"))
    function, _ = scheduled(made, from_name(arch))
    assert "HMMA.16816.F32" in machine_code(function, from_name(arch))
