"""Kernels that ptxas makes spill unless told that few blocks on a multiprocessor are enough."""

from __future__ import annotations

import pytest
from tvm import te, topi
from tvm.relax import op

from tests.schedules.cpu.kernels import composed, kernel
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


@pytest.mark.parametrize(
    ("arch", "stride", "size", "cols", "rest"),
    [("sm_80", 1, 28, 512, True), ("sm_90a", 1, 28, 512, True), ("sm_80", 2, 14, 2048, False)],
)
def test_addresses_of_unknown_sizes(
    arch: str, stride: int, size: int, cols: int, rest: bool
) -> None:
    """Convolutions of ResNet-50 with any batch, in tf32: a thread has all registers there are."""

    def build(x: te.Tensor, w: te.Tensor, bias: te.Tensor, *other: te.Tensor) -> te.Tensor:
        y = topi.nn.conv2d(x, w, stride, 0, 1, "NHWC", kernel_layout="OHWI")
        y = topi.add(y, bias)
        return topi.nn.relu(topi.add(y, other[0])) if other else y

    depth = cols // (4 if stride == 1 else 2)
    shapes = [("n", size, size, depth), (cols, 1, 1, depth), (cols,)]
    shapes += [("n", size, size, cols)] if rest else []
    made = composed(build, *((shape, "float32") for shape in shapes))
    function, selection = scheduled(made, from_name(arch), tf32=True)
    assert selection.rule == "mma" and machine_code(function, from_name(arch))


@pytest.mark.parametrize("arch", ["sm_80", "sm_90a"])
def test_windows_of_unknown_batches(arch: str) -> None:
    """A padded 3 x 3 convolution of ResNet-50 in tf32: each copy has a guard of its own."""
    made = kernel(
        lambda x, w: op.nn.conv2d(
            x, w, 2, 1, data_layout="NHWC", kernel_layout="OHWI", out_layout="NHWC"
        ),
        (("n", 14, 14, 512), "float32"),
        ((512, 3, 3, 512), "float32"),
    )
    function, selection = scheduled(made, from_name(arch), tf32=True)
    assert selection.rule == "mma" and machine_code(function, from_name(arch))
