"""Products of warpgroups: every type, layout and size, maps and copies, what is missing noticed."""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from tvm import relax, te, topi

from tests.schedules.cpu.kernels import composed, kernel
from tvmext.arch.cuda import from_name
from tvmext.build.cuda import Toolchain
from tvmext.schedules.cuda import mma_choice, wgmma_choice
from tvmext.schedules.cuda.mma_choice import ByRows, Workload
from tvmext.schedules.cuda.tensor_map import strided
from tvmext.schedules.cuda.wgmma import Wgmma, Wide
from tvmext.schedules.cuda.wgmma_choice import Decision
from tvmext.schedules.rule import Declined, Kernel

from .device import ARCH, IS_GPU
from .kernels import ORDERS, machine_code, run, runs, scheduled, source
from .test_mma import matmul, numbers, round_to_tf32

HOPPER = ARCH if IS_GPU else from_name("sm_90a")
pytestmark = pytest.mark.skipif(not HOPPER.has_wgmma, reason="this GPU has no wgmma")
op = relax.op
BFLOAT16 = ml_dtypes.bfloat16


def applied(made: Kernel, decision: Decision | ByRows, *, maps: bool = True) -> Any:
    """The kernel with that decision; without `maps` every operand is copied."""
    wide = _wide(made)
    if not maps:
        wide = replace(wide, tensors=(None, None))
    return Wgmma(HOPPER).apply(made, wide, decision, HOPPER).func


def _wide(made: Kernel) -> Wide:
    product = Wgmma(HOPPER, tf32=True).mma.match(made)
    assert not isinstance(product, Declined), product
    found = product.contraction
    lhs, rhs = (
        strided(source, found.batch, own, found.reduce)
        for source, own in zip(product.sources, (found.rows, found.cols))
    )
    return Wide(product, (lhs, rhs))


def plain(
    a: np.ndarray, b: np.ndarray, how: str, dims: Sequence[Any] | None = None
) -> tuple[Kernel, dict[str, np.ndarray], np.ndarray]:
    """The product of `a` and `b`, stored as `how` says: "n" as it is, "t" transposed."""
    out = "int32" if a.dtype.kind in "iu" else "float32"
    exact = a.astype(out) @ b.astype(out)
    left, right = (x.T.copy() if turn == "t" else x for x, turn in zip((a, b), how))

    def build(a: te.Tensor, b: te.Tensor) -> te.Tensor:
        return topi.nn.matmul(
            a, b, out_dtype=out, transpose_a=how[0] == "t", transpose_b=how[1] == "t"
        )

    shapes = dims or [left.shape, right.shape]
    made = composed(build, *((shape, str(left.dtype)) for shape in shapes))
    return made, {"x0": left, "x1": right}, exact


@pytest.mark.parametrize(
    ("decision", "how", "dtype", "maps"),
    [
        (Decision(128, 64, 64, 2, 3), "nn", "float16", True),
        (Decision(128, 64, 64, 2, 3), "nn", "float16", False),
        (Decision(128, 96, 64, 1, 2), "tt", BFLOAT16, True),
        (Decision(64, 96, 64, 1, 2), "tt", "float16", False),
        (Decision(64, 32, 32, 1, 4), "nt", "float16", True),
        (Decision(64, 64, 64, 1, 2, splits=2), "tn", "float16", True),
        (Decision(64, 32, 16, 1, 2), "nn", "float16", True),
        (Decision(64, 32, 128, 1, 3), "nt", "int8", True),
        (Decision(64, 32, 128, 1, 3), "nt", ml_dtypes.float8_e4m3fn, True),
    ],
)
def test_tiles(decision: Decision, how: str, dtype: Any, maps: bool) -> None:
    """Either layout of each operand, every width of the swizzle, edges on all sides."""
    a, b = numbers(dtype, 72, 208), numbers(dtype, 208, 48, seed=1)
    made, arrays, exact = plain(a, b, how)
    function = applied(made, decision, maps=maps)
    for (result,) in runs(function, [(arrays, order) for order in ORDERS], arch=HOPPER):
        np.testing.assert_allclose(result, exact, rtol=1e-3, atol=2e-3)


SIZES = [0, 1, 2, 7, 31, 63, 64, 65, 97, 128, 131, 200]


@pytest.mark.parametrize("maps", [True, False])
def test_free_rows_and_columns(maps: bool) -> None:
    shapes = [("m", 72), ("n", 72)]
    a, b = (numbers("float16", 200, 72, seed=seed) for seed in (0, 1))
    made, _, _ = plain(a, b.T, "nt", shapes)
    function = applied(made, Decision(64, 64, 64, 1, 2), maps=maps)
    sizes = list(zip(SIZES, SIZES[5:] + SIZES[:5]))
    inputs = [({"x0": a[:m].copy(), "x1": b[:n].copy()}, 7) for m, n in sizes]
    for (m, n), (result,) in zip(sizes, runs(function, inputs, arch=HOPPER)):
        exact = a[:m].astype("float32") @ b[:n].astype("float32").T
        np.testing.assert_allclose(result, exact, rtol=1e-3, atol=1e-3)


def test_few_rows_may_have_a_kernel_of_another_kind() -> None:
    a, b = numbers("float16", 300, 64), numbers("float16", 64, 96, seed=1)
    made = kernel(matmul("float16"), (("m", 64), "float16"), ((64, 96), "float16"))
    decision = ByRows(128, mma_choice.Decision(32, 32, 32, 16, 16, 2), Decision(128, 128, 64, 2, 2))
    function = applied(made, decision)
    inputs = [({"x0": a[:m].copy(), "x1": b}, 1) for m in (3, 128, 129, 300)]
    for (given, _), (result,) in zip(inputs, runs(function, inputs, arch=HOPPER)):
        exact = given["x0"].astype("float32") @ b.astype("float32")
        np.testing.assert_allclose(result, exact, rtol=1e-2, atol=1e-2)


def test_batches_and_epilogue_are_mapped() -> None:
    """Heads inside of rows, as attention reads them; what follows is fused."""
    a, b = numbers("float16", 2, 70, 3, 32), numbers("float16", 2, 50, 3, 32, seed=1)
    bias = numbers("float16", 50, seed=2)
    exact = np.einsum("bmhk,bnhk->bhmn", a.astype("float32"), b.astype("float32"))

    def build(a: te.Tensor, b: te.Tensor, bias: te.Tensor) -> te.Tensor:
        k = te.reduce_axis((0, 32), "k")
        product = te.compute(
            (2, 3, 70, 50),
            lambda i, h, m, n: te.sum(
                a[i, m, h, k].astype("float32") * b[i, n, h, k].astype("float32"), axis=k
            ),
            "product",
        )
        return topi.nn.relu(topi.add(topi.cast(product, "float16"), bias))

    made = composed(build, *((x.shape, "float16") for x in (a, b, bias)))
    wide = _wide(made)
    assert all(tensor is not None and len(tensor.batch) == 2 for tensor in wide.tensors)
    function = applied(made, Decision(64, 64, 32, 1, 2))
    (result,) = run(function, {"x0": a, "x1": b, "x2": bias}, 7, arch=HOPPER)
    expected = np.maximum(exact + bias.astype("float32"), 0)
    np.testing.assert_allclose(result, expected, rtol=1e-2, atol=2e-2)


def test_tensor_maps_round_to_tf32() -> None:
    a, b = numbers("float32", 70, 44), numbers("float32", 44, 40, seed=1)
    made, arrays, _ = plain(a, b, "nt")
    (result,) = run(applied(made, Decision(64, 64, 32, 1, 2)), arrays, 7, arch=HOPPER)
    exact = round_to_tf32(a).astype("float64") @ round_to_tf32(b)
    np.testing.assert_allclose(result, exact, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("size", [1, 3])
def test_convolution(size: int) -> None:
    """One of 1x1 is a strided tensor; a window is copied, its weights have a map."""
    x, w = numbers("float16", 2, 9, 9, 16), numbers("float16", 24, size, size, 16, seed=1)
    pad = size // 2
    padded = np.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0))).astype("float32")
    windows = np.lib.stride_tricks.sliding_window_view(padded, (size, size), (1, 2))
    made = kernel(
        lambda x, w: op.nn.conv2d(
            x, w, 1, pad, data_layout="NHWC", kernel_layout="OHWI", out_layout="NHWC"
        ),
        (x.shape, "float16"),
        (w.shape, "float16"),
    )
    assert [tensor is not None for tensor in _wide(made).tensors] == [size == 1, True]
    function = applied(made, Decision(64, 32, 64, 1, 2))
    exact = np.einsum("nhwcij,oijc->nhwo", windows, w.astype("float32"))
    (result,) = run(function, {"x0": x, "x1": w}, 7, arch=HOPPER)
    np.testing.assert_allclose(result, exact, rtol=1e-2, atol=2e-2)


def test_the_rules_ask_it_first() -> None:
    def rule(m: Any, k: int, n: int, arch: Any = HOPPER, dtype: str = "float16") -> str:
        made = kernel(matmul(dtype), ((m, k), dtype), ((k, n), dtype))
        return scheduled(made, arch)[1].rule

    assert rule(4096, 4096, 4096) == rule("m", 4096, 4096) == "wgmma"
    assert rule(8, 1024, 1024) == rule(4096, 1030, 1024) == "mma"
    assert rule(4096, 4096, 4096, from_name("sm_80")) == "mma"
    assert rule(4096, 4096, 4096, from_name("sm_100a")) == "mma"
    assert rule(4096, 4096, 4096, dtype="float32") == "contract"
    turned, _, _ = plain(*(np.zeros((2048, 2048), "float32") for _ in "ab"), "nt")
    assert scheduled(turned, HOPPER, tf32=True)[1].rule == "wgmma"


def test_choice() -> None:
    large = Workload(1, 4096, 4096, 4096, "float16", (16, 16))
    plan = wgmma_choice.choose(large, (0, 0), HOPPER)
    assert isinstance(plan, Decision)
    assert plan.rows * plan.cols == 128 * 256
    assert plan.stages > 2
    deep = wgmma_choice.choose(replace(large, rows=256, cols=768), (0, 0), HOPPER)
    assert isinstance(deep, Decision)
    assert deep.splits > 1
    small = wgmma_choice.choose(replace(large, rows=16), (0, 0), HOPPER)
    assert isinstance(small, mma_choice.Decision)


MISSING = {
    "the consumer's wait for a full stage": ("tvmext_barrier_wait", 0, True),
    "the producer's wait for an empty stage": ("tvmext_barrier_wait", 1, True),
    "the same, with copies": ("tvmext_barrier_wait", 1, False),
    "registers that are settled": ("tvmext_wgmma_fence", 0, True),
    "products in flight": ("tvmext_wgmma_wait_1", 0, True),
    "the last products": ("tvmext_wgmma_wait_0", 0, True),
    "arrivals at empty stages": ("tvmext_barrier_arrive", 0, True),
    "barriers told to engines": ("tvmext_fence_proxy", 0, True),
    "bytes of a stage": ("tvmext_barrier_expect", 0, True),
    "copies told to products": ("tvmext_fence_proxy", 1, False),
    "arrivals of copies": ("tvmext_barrier_copied", 0, False),
    "barriers set up for all": ("__syncthreads", 0, True),
    "results after operands": ("__syncthreads", 1, True),
    "rows after fragments": ("__syncthreads", 2, True),
}
"""{what: (call, the how manieth, with maps or copies)}"""


@pytest.mark.skipif(IS_GPU, reason="code is not mutated on a GPU")
@pytest.mark.parametrize("what", MISSING)
def test_what_is_missing_is_noticed(what: str) -> None:
    name, number, maps = MISSING[what]
    a, b = numbers("float16", 128, 400), numbers("float16", 400, 32, seed=1)
    made, arrays, exact = plain(a, b, "nn")
    function = applied(made, Decision(64, 32, 64, 1, 2), maps=maps)

    def without(code: str) -> str:
        calls = [m.span() for m in re.finditer(rf"^ +{name}\w*\(.*\);\n", code, re.M)]
        start, end = calls[number]
        return code[:start] + code[end:]

    orders = (1, 0, *range(7, 15))
    results = runs(function, [(arrays, order) for order in orders], without, HOPPER)
    with suppress(RuntimeError):  # the emulator's word for what must not be
        assert not all(np.allclose(one, exact, rtol=1e-2, atol=1e-2) for (one,) in results)


@pytest.mark.parametrize(
    ("dtype", "decision", "instruction"),
    [
        ("float16", Decision(128, 256, 64, 2, 4), "HGMMA.64x256x16.F32"),
        (BFLOAT16, Decision(256, 128, 64, 2, 4), "HGMMA.64x128x16.F32.BF16"),
        ("int8", Decision(128, 128, 128, 1, 3), "IGMMA.64x128x32.S8.S8"),
        ("float32", Decision(128, 128, 32, 2, 4), "HGMMA.64x128x8.F32.TF32"),
        (ml_dtypes.float8_e5m2, Decision(128, 256, 128, 2, 3), "QGMMA.64x256x32.F32.E5M2.E5M2"),
    ],
)
def test_machine_code(dtype: Any, decision: Decision, instruction: str) -> None:
    """Products of warpgroups, boxes by tensor maps, no register in memory."""
    made, _, _ = plain(*(np.zeros((512, 512), dtype) for _ in "ab"), "nt")
    words = machine_code(applied(made, decision), HOPPER)
    assert instruction in words, words
    assert "UTMALDG.2D" in words
    assert not {word for word in words if word.startswith(("LDL", "STL", "HMMA", "IMMA"))}


def test_machine_code_of_copies() -> None:
    """The most registers: sums of the largest tile, and addresses. ptxas leaves products alone."""
    made, _, _ = plain(*(np.zeros((512, 512), "float16") for _ in "ab"), "nn")
    function = applied(made, Decision(128, 256, 64, 2, 4), maps=False)
    words = machine_code(function, HOPPER)
    assert {"HGMMA.64x256x16.F32", "LDGSTS.E.BYPASS.128"} <= words
    assert not {word for word in words if word.startswith(("LDL", "STL", "UTMALDG"))}
    chain = Toolchain(HOPPER)
    _, log = chain._compiled(source(function, HOPPER), chain._options())
    assert "serialized" not in log, log
