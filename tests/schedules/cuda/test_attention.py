"""Attention on a GPU: NumPy in float64 as the oracle, every layout, mask and size, parts of keys."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from tests.schedules.cpu.kernels import composed, normal
from tests.schedules.cpu.test_attention import GROUPED, MASKED, PLAIN, SCALE, SPLIT, expected, heads
from tvmext.arch.cuda import from_name
from tvmext.passes.attention import Form, Step, attention
from tvmext.schedules.cuda.attention import FusedAttention, Workload
from tvmext.schedules.cuda.attention_choice import ByRows, Decision, Sizes, candidates, choose
from tvmext.schedules.rule import Declined, Kernel

from .kernels import ARCH, ORDERS, machine_code, run, scheduled

BFLOAT16 = ml_dtypes.bfloat16
TOLERANCE = {"float32": 1e-5, "float16": 2e-3, "bfloat16": 2e-2}


def made(form: Form, arrays: Sequence[np.ndarray], dims: Sequence[Any] | None = None) -> Kernel:
    shapes = dims or [array.shape for array in arrays]
    types = [str(array.dtype) for array in arrays]
    return composed(lambda *tensors: attention(form, tensors), *zip(shapes, types))


def applied(kernel: Kernel, decision: Decision, arch: Any = ARCH) -> Any:
    rule = FusedAttention(arch)
    workload = rule.match(kernel)
    assert isinstance(workload, Workload), workload
    return rule.apply(kernel, workload, decision, arch).func


def check(
    form: Form,
    arrays: Sequence[np.ndarray],
    dims: Sequence[Any] | None = None,
    *,
    dtype: Any = "float32",
    decision: Decision | None = None,
    orders: Sequence[int] = (7,),
) -> Any:
    """Compile for `dims`, by default the arrays' own; floats become `dtype`."""
    arrays = [a.astype(dtype) if a.dtype == np.float32 else a for a in arrays]
    form = replace(form, dtype=str(np.dtype(dtype)))
    kernel = made(form, arrays, dims)
    if decision is None:
        function, selection = scheduled(kernel)
        assert selection.rule == "attention", selection
        decision = selection.decision
    else:
        function = applied(kernel, decision)
    wide = [a if a.dtype == np.bool_ else a.astype("float64") for a in arrays]
    right, allowed = expected(form, *wide), TOLERANCE[form.dtype]
    for order in orders:
        (result,) = run(function, {f"x{i}": array for i, array in enumerate(arrays)}, order)
        np.testing.assert_allclose(result.astype("float64"), right, rtol=allowed, atol=allowed)
    return decision


SIZES = [
    (1, 2, 33, 33, 64),
    (2, 1, 1, 37, 32),
    (1, 1, 2, 1, 16),
    (1, 1, 65, 129, 40, 72),
    (1, 1, 5, 300, 7, 5),
    (2, 2, 0, 5, 16),
]


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_sizes(sizes: tuple[int, ...], dtype: str) -> None:
    check(PLAIN, heads(*sizes), dtype=dtype)


@pytest.mark.parametrize("dtype", ["float32", BFLOAT16])
def test_large_heads(dtype: Any) -> None:
    check(PLAIN, heads(1, 1, 17, 40, 256, 128), dtype=dtype)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_parts_of_the_keys(dtype: str) -> None:
    """One row and many keys: blocks share the keys, a second launch joins what they found."""
    decision = check(PLAIN, heads(1, 2, 1, 700, 64), dtype=dtype, orders=ORDERS)
    assert decision.blocks > 4


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_heads_that_are_not_split_in_memory(dtype: str) -> None:
    check(SPLIT, [normal(2, n, 3, 16, seed=n) for n in (11, 23, 23)], dtype=dtype)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_keys_and_values_the_other_way_around(dtype: str) -> None:
    """Keys lie side by side in memory: [b, h, d, s]."""
    form = replace(PLAIN, key=(0, 1, 3, 2), value=(0, 1, 3, 2))
    q, k, v = heads(1, 2, 20, 40, 32)
    turned = [x.transpose(0, 1, 3, 2).copy() for x in (k, v)]
    check(form, [q, *turned], dtype=dtype)
