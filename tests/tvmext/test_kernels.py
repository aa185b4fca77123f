"""What LLVM is told about the kernels."""

from __future__ import annotations

import pytest
import tvm
from tvm import tirx
from tvm.script import tirx as T

from tvmext.arch import CudaArch, from_target, to_target
from tvmext.build.kernels import code_target


@T.prim_func(s_tir=True)
def tile(
    x: T.Buffer((3, 3, 64, 8), "float32"),
    w: T.Buffer((3, 3, 64, 16), "float32"),
    y: T.Buffer((8, 16), "float32"),
) -> None:
    sums = T.alloc_buffer((8, 16))
    for row in T.unroll(8):
        for lane in T.vectorized(16):
            sums[row, lane] = T.float32(0)
    for i, j, k in T.grid(3, 3, 64):
        for row in T.unroll(8):
            for lane in T.vectorized(16):
                sums[row, lane] = sums[row, lane] + x[i, j, k, row] * w[i, j, k, lane]
    for row in T.unroll(8):
        for lane in T.vectorized(16):
            y[row, lane] = sums[row, lane]


def test_a_tile_is_one_in_the_code(capfd: pytest.CaptureFixture[str]) -> None:
    """Not one for each of 3 x 3 places; and LLVM knows the option, else TVM only logs it."""
    target = tvm.target.Target(to_target(from_target("llvm -mcpu=x86-64-v4")))
    counts = []
    for chosen in (code_target(target), target):
        library = tirx.build(tvm.IRModule({"tile": tile}), chosen)
        counts.append(library.inspect_source("ll").count("<16 x float> %"))
    assert counts[0] < counts[1] / 2
    assert "not an LLVM option" not in "".join(capfd.readouterr())


def test_the_target_of_a_gpu_stays() -> None:
    arch = from_target("cuda -arch=sm_90a")
    assert isinstance(arch, CudaArch)
    target = tvm.target.Target(to_target(arch))
    assert code_target(target).same_as(target)
