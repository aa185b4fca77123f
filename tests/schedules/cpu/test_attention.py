"""Attention in one kernel: which kernels the rule takes, and NumPy in float64 as the oracle."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import tvm
from tvm import te, tirx

from tests.schedules.cpu.kernels import ARCH, composed, kernel, normal, run, scheduled
from tvmext.arch import FAMILIES, CpuArch
from tvmext.passes.attention import Form, Step, attention
from tvmext.schedules.cpu.attention import Decision, FusedAttention, Workload
from tvmext.schedules.kernel.analysis import collect
from tvmext.schedules.rule import Declined, Kernel
from tvmext.schedules.schedule import ScheduleKernels

SCALE = Step("relax.multiply", (None, 0.25))
MASKED = (SCALE, Step("relax.add", (None, 0)))
PLAIN = Form((0, 1, 2, 3), (0, 1, 2, 3), (0, 1, 2, 3), (0, 1, 2, 3), (), (SCALE,))
SPLIT = Form((0, 2, 1, 3), (0, 2, 1, 3), (0, 2, 1, 3), (0, 2, 1, 3), (), (SCALE,))
GROUPED = Form((0, 1, 2, 3, 4), (0, 1, 3, 4), (0, 1, 3, 4), (0, 3, 1, 2, 4), (), (SCALE,))


def arranged(x: np.ndarray, order: Sequence[int | None], loops: int) -> np.ndarray:
    """A tensor with its dims in the order of the loops, those it does not have of extent 1."""
    own = [position for position in order if position is not None]
    dense = x.reshape([size for size, position in zip(x.shape, order) if position is not None])
    dense = dense.transpose(np.argsort(own))
    shape = iter(dense.shape)
    return dense.reshape([next(shape) if p in own else 1 for p in range(loops)])


def expected(form: Form, q: Any, k: Any, v: Any, *extras: Any) -> np.ndarray:
    loops = len(form.query)
    q, k, v, *extras = (
        arranged(x.astype("float64"), order, loops)
        for x, order in zip((q, k, v, *extras), (form.query, form.key, form.value, *form.extras))
    )
    scores = np.einsum("...id,...jd->...ij", q, k) * 0.25
    for extra in extras:
        scores = scores + extra
    with np.errstate(invalid="ignore"):
        weights = np.exp(scores - scores.max(-1, keepdims=True, initial=-np.inf))
        weights /= weights.sum(-1, keepdims=True)
    if form.zero_for_nan:
        weights = np.nan_to_num(weights)
    return np.transpose(weights @ v, form.out)


def made(form: Form, *shapes: Sequence[Any]) -> Kernel:
    inputs = [(shape, "float32") for shape in shapes]
    return composed(lambda *tensors: attention(form, tensors), *inputs)


def check(
    form: Form,
    arrays: Sequence[np.ndarray],
    dims: Sequence[Sequence[Any]] | None = None,
    arch: CpuArch = ARCH,
) -> Decision:
    function, selection = scheduled(made(form, *(dims or [x.shape for x in arrays])), arch)
    wanted = expected(form, *arrays)
    empty = dims is None and not wanted.size
    assert selection.rule == ("nothing" if empty else "attention"), selection
    (result,) = run(function, {f"x{i}": array for i, array in enumerate(arrays)}, arch)
    np.testing.assert_allclose(result, wanted, rtol=1e-5, atol=2e-6)
    return selection.decision


def heads(b: int, h: int, s: int, t: int, d: int, e: int | None = None) -> list[np.ndarray]:
    """Queries, keys and values as [b, h, s, d]."""
    shapes = (b, h, s, d), (b, h, t, d), (b, h, t, e or d)
    return [normal(*shape, seed=i) for i, shape in enumerate(shapes)]


@pytest.mark.parametrize(
    "sizes",
    [
        (1, 2, 64, 64, 64),
        (1, 2, 1, 37, 32),
        (2, 1, 2, 1, 16),
        (1, 3, 49, 49, 32),
        (1, 1, 13, 197, 40),
        (1, 1, 31, 17, 7, 5),
        (1, 1, 5, 1500, 16),
        (2, 2, 0, 5, 16),
        (0, 2, 3, 5, 16),
    ],
)
def test_sizes(sizes: tuple[int, ...]) -> None:
    check(PLAIN, heads(*sizes))


@pytest.mark.skipif(ARCH.isa != "x86_64", reason="runs code for older x86-64 levels")
@pytest.mark.parametrize("level", ["x86-64", "x86-64-v3"])
def test_narrower_vectors(level: str) -> None:
    check(PLAIN, heads(1, 2, 13, 37, 24), arch=FAMILIES[level])


def test_heads_that_are_not_split_in_memory() -> None:
    check(SPLIT, [normal(2, n, 3, 16, seed=n) for n in (11, 23, 23)])


def test_heads_that_share_keys() -> None:
    """Heads of a group are rows of one product, and masked like all others."""
    shapes = (1, 2, 3, 5, 16), (1, 2, 19, 16), (1, 2, 19, 16)
    arrays = [normal(*shape, seed=i) for i, shape in enumerate(shapes)]
    check(GROUPED, arrays)
    form = replace(GROUPED, extras=((0, 1, 2, 3, 4),), steps=MASKED)
    check(form, [*arrays, normal(1, 2, 3, 5, 19)])


def test_one_batch_that_the_queries_do_not_have() -> None:
    """They are columns of a product, read through a map."""

    def body(wide: te.Tensor, k: te.Tensor, v: te.Tensor) -> te.Tensor:
        q = te.compute((1, 3, 9, 16), lambda b, h, s, d: wide[s, h * 16 + d], name="queries")
        return attention(PLAIN, (q, k, v))

    q, k, v = heads(1, 3, 9, 20, 16)
    wide = q[0].transpose(1, 0, 2).reshape(9, 48)
    function, selection = scheduled(composed(body, *((x.shape, "float32") for x in (wide, k, v))))
    assert selection.rule == "attention"
    (result,) = run(function, {"x0": wide, "x1": k, "x2": v})
    np.testing.assert_allclose(result, expected(PLAIN, q, k, v), rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize(
    ("order", "shape"),
    [((0, 1, 2, 3), (2, 2, 7, 21)), ((None, None, None, 3), (1, 1, 1, 21)), ((2, 3), (7, 21))],
)
def test_masks(order: tuple, shape: tuple[int, ...]) -> None:
    form = replace(PLAIN, extras=(order,), steps=MASKED)
    check(form, [*heads(2, 2, 7, 21, 16), normal(*shape)])


@pytest.mark.parametrize("zero_for_nan", [False, True])
@pytest.mark.parametrize("keys", [9, 1000])
def test_minus_infinity(zero_for_nan: bool, keys: int) -> None:
    """Whole rows, whole blocks of keys at the start, and single scores."""
    mask = np.zeros((6, keys), "float32")
    mask[1], mask[2, : keys - 2], mask[3, ::2] = -np.inf, -np.inf, -np.inf
    form = replace(PLAIN, extras=((2, 3),), steps=MASKED, zero_for_nan=zero_for_nan)
    check(form, [*heads(1, 1, 6, keys, 16), mask], arch=replace(ARCH, l1_bytes=1 << 14))


@pytest.mark.parametrize("keys", [192, 701])
def test_hidden_keys(keys: int) -> None:
    """A head each: causal, a window, padding, and rows that see nothing among others that do."""
    i, j = np.arange(60)[:, None] + keys - 60, np.arange(keys)[None]
    kinds = j > i, (j > i) | (j < i - 20), (j < 70) | (j > 130) | (i < 0), (j > i) | (i % 7 == 3)
    mask = np.where(np.stack(kinds), np.finfo("float32").min, 0).astype("float32")
    form = replace(PLAIN, extras=((1, 2, 3),), steps=MASKED)
    arrays = [*heads(1, 4, 60, keys, 16), mask]
    assert check(form, arrays, arch=replace(ARCH, l1_bytes=1 << 14)).skips
    dims = [(1, 4, "s", 16), (1, 4, "t", 16), (1, 4, "t", 16), (4, "s", "t")]
    check(form, arrays, dims, replace(ARCH, cores=2))


def test_a_mask_that_tells_rows_apart_is_taken_for_a_causal_one() -> None:
    """Panels of few keys, so that hidden ones are whole panels; not where all rows see the same."""
    shapes, wide = [(2, 4, 77, 64)] * 3, FAMILIES["x86-64-v4"]
    by_row, for_all = (
        scheduled(made(replace(PLAIN, extras=(order,), steps=MASKED), *shapes, mask), wide)[1]
        for order, mask in (((2, 3), (77, 77)), ((3,), (77,)))
    )
    assert by_row.decision.skips
    assert by_row.decision.scores.vectors < for_all.decision.scores.vectors


def test_hidden_keys_are_not_computed() -> None:
    """NaN among them is not seen, unlike NaN elsewhere."""
    q, k, v = heads(1, 1, 8, 256, 16)
    hidden = np.arange(256)[None] >= 100
    k[..., 128:, :] = v[..., 128:, :] = np.nan
    shapes = [x.shape for x in (q, k, v, hidden)]
    where = Step("relax.where", (0, -np.inf, None))
    form = replace(PLAIN, extras=((None, 3),), steps=(SCALE, where))
    types = ["float32"] * 3 + ["bool"]
    made_up = composed(lambda *x: attention(form, x), *zip(shapes, types))
    function, _ = scheduled(made_up)
    arrays = {f"x{i}": x for i, x in enumerate((q, k, v, hidden))}
    (result,) = run(function, arrays)
    few = expected(PLAIN, q, k[..., :100, :], v[..., :100, :])
    np.testing.assert_allclose(result, few, rtol=1e-5, atol=2e-6)
    q[0, 0, 3, 5] = np.nan
    (result,) = run(function, arrays)
    assert np.isnan(result[0, 0]).any(-1).nonzero()[0].tolist() == [3]


@pytest.mark.parametrize("sizes", [(2, 1, 1), (1, 40, 40), (1, 3, 700), (3, 9, 0), (1, 0, 4)])
def test_symbolic(sizes: tuple[int, int, int]) -> None:
    b, s, t = sizes
    arrays = [*heads(b, 2, s, t, 16), normal(b, 1, 1, t)]
    dims = [("b", 2, "s", 16), ("b", 2, "t", 16), ("b", 2, "t", 16), ("b", 1, 1, "t")]
    check(replace(PLAIN, extras=((0, None, None, 3),), steps=MASKED), arrays, dims)


@pytest.mark.parametrize("cores", [1, 2, 3])
def test_parts_of_the_rows_in_parallel(cores: int) -> None:
    decision = check(PLAIN, heads(1, 1, 100, 150, 64), arch=replace(ARCH, cores=cores))
    assert (decision.parts, decision.parallel) == (cores, cores > 1)


def test_long_rows_are_taken_in_blocks() -> None:
    short, long = (described(1, 1, 64, keys, 64) for keys in (197, 5000))
    rule = FusedAttention()
    assert rule.choose(short, ARCH).block_keys == 0
    assert 0 < rule.choose(long, ARCH).block_keys < 5000


def test_memory_grows_with_the_keys_alone() -> None:
    """The keys as panels, and what fits into L1: nothing has an element for each score."""
    n = 8192
    function, _ = scheduled(made(PLAIN, *[(1, 1, n, 64)] * 3))
    buffers = [stmt.buffer for stmt in collect(function.body, tirx.AllocBuffer)]
    sizes = sorted(4 * math.prod(int(extent) for extent in buffer.shape) for buffer in buffers)
    assert sizes[-1] == 4 * n * 64
    assert sizes[-2] <= ARCH.l1_bytes


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_tiles_fit_the_registers(family: str) -> None:
    arch = FAMILIES[family]
    decision = FusedAttention().choose(described(1, 12, 64, 64, 64), arch)
    for tile in (decision.scores, decision.values):
        assert tile.rows * tile.vectors + tile.vectors + 1 <= arch.vector_registers
    assert decision.scores.rows == decision.values.rows


def test_kernels_of_any_number_of_heads_are_alike() -> None:
    schedule = ScheduleKernels(ARCH, [FusedAttention()])

    def alike(heads: Any, depth: int) -> Any:
        shapes = [("b", heads, rows, depth) for rows in ("s", "t", "t")]
        return schedule.alike(made(PLAIN, *shapes).func)

    assert alike(2, 32) == alike(5, 32) == alike("h", 32) is not None
    assert alike(2, 32) != alike(2, 64)
    assert (
        schedule.alike(
            composed(lambda x: te.compute(x.shape, lambda i: x[i]), (("n",), "float32")).func
        )
        is None
    )


def described(b: int, h: int, s: int, t: int, d: int) -> Workload:
    workload = FusedAttention().match(made(PLAIN, (b, h, s, d), (b, h, t, d), (b, h, t, d)))
    assert isinstance(workload, Workload)
    return workload


def test_must_not_fire() -> None:
    rule = FusedAttention()
    shapes = [(1, 2, 5, 16), (1, 2, 7, 16), (1, 2, 7, 16)]
    assert isinstance(rule.match(made(PLAIN, *shapes)), Workload)
    softmax = kernel(tvm.relax.op.nn.softmax, ((4, 9), "float32"))
    assert "two products" in declined(softmax)
    none = made(PLAIN, (1, 2, 5, 16), (1, 2, 0, 16), (1, 2, 0, 16))
    assert "no keys" in declined(none)
    depth = made(PLAIN, (1, 2, 5, "d"), (1, 2, 7, "d"), (1, 2, 7, 16))
    assert "size of a head" in declined(depth)
    across = replace(PLAIN, value=(0, 1, 3, 2))
    assert "contiguous" in declined(made(across, *shapes[:2], (1, 2, 16, 7)))
    half = [(shape, "float16") for shape in shapes]
    assert "float32" in declined(composed(lambda *x: attention(PLAIN, x), *half))


def test_weights_that_are_no_softmax() -> None:
    def halved(q: te.Tensor, k: te.Tensor, v: te.Tensor) -> te.Tensor:
        """Like attention, but the largest score is halved before it is subtracted."""
        d, j, t, n = (te.reduce_axis((0, size)) for size in (16, 7, 7, 7))
        scores = te.compute((5, 7), lambda i, j: te.sum(q[i, d] * k[j, d], d))
        top = te.compute((5,), lambda i: te.max(scores[i, j], j))
        weights = te.compute((5, 7), lambda i, j: te.exp(scores[i, j] - top[i] * tirx.const(0.5)))
        total = te.compute((5,), lambda i: te.sum(weights[i, t], t))
        parts = te.compute((5, 7), lambda i, j: weights[i, j] / total[i])
        return te.compute((5, 16), lambda i, e: te.sum(parts[i, n] * v[n, e], n))

    shapes = [(5, 16), (7, 16), (7, 16)]
    made_up = composed(halved, *((shape, "float32") for shape in shapes))
    assert "relative to the largest" in declined(made_up)


def declined(kernel: Kernel) -> str:
    answer = FusedAttention().match(kernel)
    assert isinstance(answer, Declined)
    return answer.reason
