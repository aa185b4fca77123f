"""Steps of all tiles shared out among blocks that stay: who has what, sums, what is missing."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tvm import te, topi

from tests.schedules.cpu.kernels import composed, kernel
from tvmext.arch.cuda import from_name
from tvmext.schedules.cuda import mma_choice, wgmma_choice
from tvmext.schedules.cuda.mma_choice import Decision, Workload, choose
from tvmext.schedules.cuda.stream import Shares, shares

from .device import IS_GPU
from .kernels import ARCH, ORDERS, machine_code, runs, scheduled
from .test_mma import applied, matmul, numbers, without_barrier
from .test_wgmma import HOPPER, plain
from .test_wgmma import applied as applied_wide


def work(shared: Shares, steps: int, number: int) -> list[tuple[int, int]]:
    """(tile, step) of all that a block does, in words of the paper."""
    assert isinstance(shared.tiles, int)
    assert isinstance(shared.blocks, int)
    assert isinstance(shared.rounds, int)
    each, more = divmod(shared.tiles * steps, shared.blocks)
    first = number * each + min(number, more)
    own = [divmod(n, steps) for n in range(first, first + each + (number < more))]
    rounds = range(shared.rounds)
    whole = [shared.tiles + i * shared.blocks + number for i in rounds]
    return own + [(tile, k) for tile in whole for k in range(steps)]


@given(st.integers(1, 60), st.integers(1, 20), st.integers(1, 20))
def test_every_step_is_somebodys(tiles: int, steps: int, blocks: int) -> None:
    shared = shares(tiles, steps, blocks)
    assert isinstance(shared.blocks, int)
    assert shared.blocks <= blocks
    done = [one for number in range(shared.blocks) for one in work(shared, steps, number)]
    assert sorted(done) == [(tile, k) for tile in range(tiles) for k in range(steps)]
    lengths = {len(work(shared, steps, number)) for number in range(shared.blocks)}
    assert max(lengths) - min(lengths) <= 1
    owners: dict[int, set[int]] = {}
    for number in range(shared.blocks):
        for tile, _ in work(shared, steps, number):
            owners.setdefault(tile, set()).add(number)
    pieces = sum(len(who) for who in owners.values() if len(who) > 1)
    assert pieces <= shared.pieces(steps)
    assert isinstance(shared.tiles, int)
    if shared.tiles * steps % shared.blocks == 0:
        assert pieces == shared.pieces(steps)
    if tiles % blocks == 0:
        assert pieces == 0
    elif tiles > blocks:
        assert min(lengths) >= steps


SMALL = Decision(32, 32, 32, 16, 16, 3)
"""A tile of 32 x 32, steps of 32."""


@pytest.mark.parametrize(
    ("blocks", "dtype"),
    [(1, "float16"), (2, "float16"), (5, "float16"), (7, "int8"), (64, "float32")],
)
def test_sums(blocks: int, dtype: str) -> None:
    """12 tiles of 7 steps; the last rows, columns and steps are not whole. Always the same bits."""
    a, b = numbers(dtype, 2, 70, 200), numbers(dtype, 2, 200, 56, seed=1)
    out = "int32" if dtype == "int8" else "float32"
    made = kernel(matmul(out), (a.shape, dtype), (b.shape, dtype))
    depth = {"float16": 32, "int8": 64, "float32": 16}[dtype]
    plan = replace(SMALL, depth=depth, stream=blocks)
    function = applied(made, plan, tf32=True)
    results = [one for (one,) in runs(function, [({"x0": a, "x1": b}, o) for o in ORDERS])]
    exact = a.astype(out) @ b.astype(out)
    bound = 3e-2 if dtype == "float32" else 1e-3
    np.testing.assert_allclose(results[0], exact, rtol=bound, atol=bound)
    for other in results[1:]:
        np.testing.assert_array_equal(other, results[0])


@pytest.mark.parametrize("blocks", [3, 40])
def test_free_rows(blocks: int) -> None:
    """Shares are worked out by the kernel; 0 rows, fewer tiles than blocks, whole rounds."""
    a, b = numbers("float16", 200, 136), numbers("float16", 136, 40, seed=1)
    made = kernel(matmul("float16"), (("m", 136), "float16"), ((136, 40), "float16"))
    function = applied(made, replace(SMALL, stream=blocks))
    sizes = [0, 1, 33, 96, 97, 200]
    inputs = [({"x0": a[:m].copy(), "x1": b}, 7) for m in sizes]
    for m, (result,) in zip(sizes, runs(function, inputs), strict=True):
        exact = a[:m].astype("float32") @ b.astype("float32")
        np.testing.assert_allclose(result, exact, rtol=1e-2, atol=3e-2)


def test_batches_and_epilogue() -> None:
    a, b = numbers("float16", 3, 40, 168), numbers("float16", 3, 40, 168, seed=1)
    bias, more = numbers("float32", 40, seed=2), numbers("float32", 3, 40, 40, seed=3)

    def build(a: te.Tensor, b: te.Tensor, c: te.Tensor, d: te.Tensor) -> te.Tensor:
        product = topi.nn.batch_matmul(a, b, out_dtype="float32")
        return topi.add(topi.nn.relu(topi.add(product, c)), d)

    made = composed(build, *((x.shape, str(x.dtype)) for x in (a, b, bias, more)))
    function = applied(made, replace(SMALL, stream=5))
    arrays = {f"x{i}": x for i, x in enumerate((a, b, bias, more))}
    product = a.astype("float32") @ b.astype("float32").transpose(0, 2, 1)
    for (result,) in runs(function, [(arrays, order) for order in (0, 7)]):
        expected = np.maximum(product + bias, 0) + more
        np.testing.assert_allclose(result, expected, rtol=1e-3, atol=1e-3)


WIDE = wgmma_choice.Decision(64, 32, 64, 1, 3)


@pytest.mark.parametrize(
    ("blocks", "how", "maps"), [(5, "nt", True), (3, "nn", False), (64, "tn", True)]
)
def test_warpgroups(blocks: int, how: str, maps: bool) -> None:
    """Places in shared memory go on turning from one tile to the next."""
    a, b = numbers("float16", 150, 328), numbers("float16", 328, 72, seed=1)
    made, arrays, exact = plain(a, b, how)
    function = applied_wide(made, replace(WIDE, stream=blocks), maps=maps)
    for (result,) in runs(function, [(arrays, order) for order in ORDERS], arch=HOPPER):
        np.testing.assert_allclose(result, exact, rtol=1e-3, atol=2e-3)


def test_free_rows_of_warpgroups() -> None:
    a, b = numbers("float16", 200, 264), numbers("float16", 40, 264, seed=1)
    made, _, _ = plain(a, b.T, "nt", [("m", 264), (40, 264)])
    function = applied_wide(made, replace(WIDE, stream=3))
    sizes = [1, 65, 192, 200]
    inputs = [({"x0": a[:m].copy(), "x1": b}, 7) for m in sizes]
    for m, (result,) in zip(sizes, runs(function, inputs, arch=HOPPER), strict=True):
        exact = a[:m].astype("float32") @ b.astype("float32").T
        np.testing.assert_allclose(result, exact, rtol=1e-3, atol=2e-3)


def without(name: str, number: int, code: str) -> str:
    lines = code.split("\n")
    calls = [i for i, line in enumerate(lines) if line.strip().startswith(name)]
    del lines[calls[number]]
    return "\n".join(lines)


@pytest.mark.skipif(IS_GPU, reason="code is not mutated on a GPU")
@pytest.mark.parametrize(
    "mutation",
    [partial(without_barrier, 0), partial(without_barrier, 1), partial(without_barrier, 3)],
)
def test_a_missing_barrier_is_noticed(mutation: Callable[[str], str]) -> None:
    """The last one is that between the results of a tile and the operands of the next."""
    a, b = numbers("float16", 96, 160), numbers("float16", 160, 96, seed=1)
    made = kernel(matmul("float32"), (a.shape, "float16"), (b.shape, "float16"))
    function = applied(made, replace(SMALL, stream=2))
    exact = a.astype("float32") @ b.astype("float32")
    given = [({"x0": a, "x1": b}, order) for order in (*ORDERS, 8, 9)]
    wrong = [result for (result,) in runs(function, given, mutation)]
    assert not all(np.allclose(w, exact, atol=1e-2) for w in wrong)


@pytest.mark.skipif(IS_GPU, reason="code is not mutated on a GPU")
@pytest.mark.parametrize(("name", "number"), [("tvmext_barrier_arrive(", 1), ("__syncthreads", -1)])
def test_what_is_missing_between_tiles_is_noticed(name: str, number: int) -> None:
    """The last step's place that nobody empties; results that the next tile's operands overtake."""
    a, b = numbers("float16", 128, 400), numbers("float16", 400, 64, seed=1)
    made, arrays, exact = plain(a, b, "nn")
    function = applied_wide(made, replace(WIDE, stages=2, stream=1))
    given = [(arrays, order) for order in (1, 0, *range(7, 15))]
    results = runs(function, given, partial(without, name, number), HOPPER)
    with suppress(RuntimeError):  # the emulator's word for what must not be
        assert not all(np.allclose(one, exact, rtol=1e-2, atol=1e-2) for (one,) in results)


FEW = Workload(1, 384, 4096, 4096, "float16", (16, 16))


def test_choice() -> None:
    """Where plain tiles would leave multiprocessors idle; whole waves are left alone."""
    plan = choose(FEW, HOPPER)
    assert isinstance(plan, Decision)
    assert plan.stream
    plainly = replace(plan, stream=0)
    assert mma_choice.price(FEW, plan, HOPPER) < mma_choice.price(FEW, plainly, HOPPER)
    whole = replace(FEW, rows=HOPPER.sms * 64, cols=256)
    for arch in (ARCH, HOPPER):
        for one in mma_choice.candidates(arch, whole):
            tiles = -(-whole.rows // one.rows) * -(-256 // one.cols)  # type: ignore[operator]
            assert not one.stream or tiles % one.stream
    large = Workload(1, 8192, 8192, 4096, "float16", (16, 16))
    assert not any(one.stream for one in wgmma_choice.candidates(HOPPER, large))
    assert not choose(replace(FEW, rows=8192, cols=8192), ARCH).stream  # type: ignore[union-attr]


def test_prices_count_what_the_second_launch_reads() -> None:
    """The more bytes a result takes through memory, the dearer."""
    one = replace(SMALL, stream=HOPPER.sms)
    slow = replace(HOPPER, dram_gb_s=HOPPER.dram_gb_s / 100)
    work = replace(FEW, rows=32 * 13, cols=32 * 11)
    ratios = [
        mma_choice.price(work, one, arch) / mma_choice.price(work, replace(one, stream=0), arch)
        for arch in (HOPPER, slow)
    ]
    assert ratios[1] > ratios[0]


@pytest.mark.parametrize("arch", ["sm_80", "sm_90a"])
def test_machine_code(arch: str) -> None:
    """Matrix instructions, wide copies and stores, no register in memory."""
    machine = from_name(arch)
    rows: Any
    for rows in (1536, "m"):
        made, _, _ = plain(
            np.zeros((1536, 1024), "float16"),
            np.zeros((1024, 1024), "float16"),
            "nt",
            [(rows, 1024), (1024, 1024)],
        )
        if arch == "sm_80":
            plan: Any = Decision(128, 128, 64, 64, 64, 4, stream=machine.sms)
            function, word, copy = applied(made, plan), "HMMA.16816.F32", "LDGSTS.E.BYPASS.128"
        else:
            wide = wgmma_choice.Decision(128, 256, 64, 2, 4, stream=machine.sms)
            function, word, copy = applied_wide(made, wide), "HGMMA.64x256x16.F32", "UTMALDG.2D"
        words = machine_code(function, machine)
        assert word in words
        assert copy in words
        assert any(one.startswith("STG.E.128") for one in words)
        assert not {one for one in words if one.startswith(("LDL", "STL"))}


def test_rules_choose_it() -> None:
    made, _, _ = plain(
        *(np.zeros((n, n), "float16") for n in (8, 8)), "nt", [(384, 4096), (4096, 4096)]
    )
    assert scheduled(made, HOPPER)[1].decision.stream
