"""Products of two results all of whose sizes are known at run time only: few sums, one column."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import tvm
from tvm import te
from tvm.relax import op

from tests.schedules.cpu.kernels import (
    ARCH,
    built,
    call,
    check,
    composed,
    kernel,
    normal,
    scheduled,
)
from tests.schedules.cpu.products import compare
from tvmext.arch import FAMILIES, CpuArch, resolve
from tvmext.passes.share_kernels import RANGES
from tvmext.schedules.cpu.gemm import Decision, Gemm
from tvmext.schedules.cpu.gemm_variants import apart, variants
from tvmext.schedules.cpu.tile import Shape
from tvmext.schedules.cpu.turns import CHAINS, hiding, parts

Product = Callable[[np.ndarray, np.ndarray], np.ndarray]


@pytest.fixture(scope="module")
def multiply() -> Product:
    """The kernel of ``[m, k] x [k, n]`` for any size."""
    function, _ = scheduled(kernel(op.matmul, (("m", "k"), "float32"), (("k", "n"), "float32")))
    compiled = built(function)

    def multiply(x: np.ndarray, w: np.ndarray) -> np.ndarray:
        (result,) = call(compiled, function, {"x0": x, "x1": w}, tvm.cpu())
        return result

    return multiply


@pytest.mark.parametrize("k", [0, 1, 2, 3, 4, 5, 7, 8, 9, 191, 1587])
def test_few_sums_of_any_number_of_steps(multiply: Product, k: int) -> None:
    """Their partial sums, and what is left of the steps."""
    for m, n in product((1, 2, 3, 4, 5, 7, 11), (1, 2, 7, 9, 16, 17, 24, 33, 40, 47, 48)):
        x, w = normal(m, k), normal(k, n, seed=1)
        np.testing.assert_allclose(multiply(x, w), x @ w, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("m, n, k", [(1, 2, 191), (2, 6, 37), (5, 7, 191), (3, 20, 101)])
def test_few_sums_of_steps_that_no_number_divides(m: int, n: int, k: int) -> None:
    x, w = normal(m, k), normal(k, n, seed=1)
    compare(op.matmul, [x, w], x @ w, rule="gemm", tolerance=1e-4)
    compare(op.matmul, [x, w], x @ w, weights=[1], rule="gemm", tolerance=1e-4)
    compare(op.matmul, [x, w], x @ w, weights=[1], dims=[("m", k), w.shape], tolerance=1e-4)


@pytest.mark.parametrize(
    "rows, vectors, steps, number",
    [
        (1, 1, None, 4),  # two loads a step, of which two are had in a cycle: four hide the latency
        (1, 7, None, 1),
        (2, 1, None, 3),
        (8, 3, None, 1),
        (1, 1, 192, 8),  # as many as divide the steps cost nothing
        (1, 1, 191, 4),
        (1, 1, 10, 5),
        (1, 1, 11, 1),  # too few to have some left over
    ],
)
def test_partial_sums_hide_the_latency(
    rows: int, vectors: int, steps: int | None, number: int
) -> None:
    assert parts(rows, vectors, steps, CHAINS) == number


@pytest.mark.parametrize(
    "rows, vectors, number",
    [(1, 1, 4), (2, 1, 3), (2, 2, 2), (1, 6, 1), (3, 2, 1)],
)
def test_fewer_partial_sums_where_vectors_take_two_cycles(
    rows: int, vectors: int, number: int
) -> None:
    assert parts(rows, vectors, None, hiding(per_cycle=1)) == number


def test_partial_sums_end_with_a_run() -> None:
    """Merged heads: each run of 7 or of 14 steps is elsewhere."""
    assert parts(1, 1, 7, CHAINS, whole=True) == 7
    assert parts(1, 1, 191, CHAINS, whole=True) == 1


@pytest.mark.parametrize("k", [0, 1, 5, 16, 128, 191])
def test_one_column(multiply: Product, k: int) -> None:
    """Dot products of rows: none, one, fewer than are taken at once, as many, more."""
    for m in (0, 1, 2, 4, 5, 15, 16, 17, 20, 21, 40):
        x, w = normal(m, k), normal(k, 1, seed=1)
        np.testing.assert_allclose(multiply(x, w), x @ w, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("arch", [ARCH, *([FAMILIES["x86-64-v3"]] if ARCH.has_masks else [])])
@pytest.mark.parametrize("n, k", [(3, 16), (5, 130), (16, 33), (17, 40), (22, 9)])
def test_dot_products_of_a_known_number(n: int, k: int, arch: CpuArch) -> None:
    """Panels of them of which one, most or all are there; masks for the last steps, or none."""
    x, w = normal(n, k), normal(k, 1, seed=1)
    compare(op.matmul, [x, w], x @ w, rule="gemm", arch=arch)


def column(*shapes: tuple[object, ...], ranges: dict[str, list[int]] | None = None) -> object:
    """What a product of such operands takes for one column."""
    made = kernel(op.matmul, *((shape, "float32") for shape in shapes))
    told = replace(made, func=made.func.with_attr(RANGES, ranges or {}))
    return Gemm().choose(Gemm().match(told), ARCH).column


def test_one_column_is_chosen_where_there_may_be_one() -> None:
    assert column(("m", "k"), ("k", "n")) is not None
    assert column(("b", 7, "k"), ("b", "k", "n"), ranges={"n": [1, 64]}) is not None
    assert column(("m", "k"), ("k", "n"), ranges={"n": [2, 64]}) is None
    assert column(("n", "k"), ("k", "n")) is None  # one sum
    assert column(("m", "k"), ("k", 8)) is None


@pytest.mark.parametrize("n", [0, 1, 2])
def test_one_column_has_the_epilogue_and_the_batch(n: int) -> None:
    x, w, skip = normal(2, 19, 33), normal(2, 33, n, seed=1), normal(2, 19, n, seed=2)
    compare(
        lambda x, w, skip: op.nn.relu(op.add(op.matmul(x, w), skip)),
        [x, w, skip],
        np.maximum(x @ w + skip, 0),
        dims=[("b", "m", "k"), ("b", "k", "n"), ("b", "m", "n")],
        rule="gemm",
    )


def test_one_column_of_a_constant_times_any_number() -> None:
    """The constant is laid out for many columns, or as it is: one column may not change that."""
    x, w = normal(19, 33), normal(33, 1, seed=1)
    compare(op.matmul, [x, w], x @ w, weights=[0], dims=[(19, 33), (33, "n")])


TWO = replace(ARCH, cores=2)


def alone(arch: CpuArch, *shapes: tuple[object, ...]) -> list[Decision]:
    """What a product of such operands takes of few steps, of one column too."""
    decision = Gemm().choose(
        Gemm().match(kernel(op.matmul, *((s, "float32") for s in shapes))), arch
    )
    every = [decision, *([decision.column] if decision.column else [])]
    return [one for each in every for one in each.others if one.up_to]


def test_one_core_takes_few_steps_alone() -> None:
    """A launch takes 3 us, a small product 50 ns."""
    found = alone(TWO, ("m", "k"), ("k", "n"))
    assert [one.rhs for one in found] == ["in place" if TWO.has_masks else "pack", "dots"]
    assert not any(one.parallel for one in found)
    assert not alone(ARCH, ("m", "k"), ("k", "n"))  # one core takes all alone
    assert not alone(TWO, (64, 4096), (4096, "n"))  # always enough for both


@pytest.mark.parametrize("b, m, n, k", [(1, 4, 3, 36), (3, 64, 40, 16), (3, 64, 40, 64)])
def test_few_and_many_steps_on_two_cores(b: int, m: int, n: int, k: int) -> None:
    x, w = normal(b, m, k), normal(b, k, n, seed=1)
    compare(op.matmul, [x, w], x @ w, dims=[("b", "m", "k"), ("b", "k", "n")], arch=TWO)
    one = w[:, :, :1].copy()
    compare(op.matmul, [x, one], x @ one, dims=[("b", "m", "k"), ("b", "k", "n")], arch=TWO)


@pytest.mark.parametrize("m, n, k", [(4, 3, 36), (100, 70, 50)])
def test_what_is_not_in_place_is_packed_on_one_core_too(m: int, n: int, k: int) -> None:
    """The second operand is read through a transpose."""

    def build(x: te.Tensor, w: te.Tensor) -> te.Tensor:
        moved = te.compute((w.shape[1], w.shape[0]), lambda k, n: w[n, k], "moved")
        axis = te.reduce_axis((0, w.shape[1]), "k")
        shape = (x.shape[0], w.shape[0])
        return te.compute(shape, lambda i, j: te.sum(x[i, axis] * moved[axis, j], axis))

    x, w = normal(m, k), normal(n, k, seed=1)
    dims = [("m", "k"), ("n", "k")]
    check(build, [x, w], x @ w.T, dims=dims, how=composed, rule="gemm", arch=TWO, tolerance=1e-4)


@pytest.mark.parametrize(
    "least, kept",
    [(1, [8, 16, 24, 32, 40, 56, 72, 88]), (49, [24, 56, 72, 88]), (1 << 14, [])],
)
def test_widths_that_a_last_panel_needs(least: int, kept: list[int]) -> None:
    """One in 49 columns or more is 1 to 48 of a second panel, or 49 to 112 of the first."""
    widest = Shape(1, 7, 16)
    halves = [Shape(1, n, 8) for n in (1, 3, 5, 7, 9, 11, 13)]
    whole = [Shape(1, n, 16) for n in range(1, 7)]
    shapes = sorted([*halves, *whole], key=lambda one: one.cols)
    assert [one.cols for one in apart(shapes, widest, least)] == kept


def test_heights_are_for_rows_at_which_a_variant_is_taken() -> None:
    """Packing pays from some rows on: tiles of fewer heights do there."""
    zen4 = resolve("llvm -mcpu=znver4")
    assert isinstance(zen4, CpuArch)
    found = Gemm().match(kernel(op.matmul, (("m", "k"), "float32"), (("k", "n"), "float32")))
    in_place, packed, *_ = variants(found, zen4)
    assert (in_place.rhs, in_place.rows, packed.rhs) == ("in place", 1, "pack")
    assert packed.rows > packed.tile.rows
    first = Gemm().choose(found, zen4)
    many = first.others[0]
    assert len(many.heights) < len(first.heights)
    assert many.heights[-1][0] == 1  # right for any number of rows
