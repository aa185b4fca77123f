"""Attention on a GPU: every layout, mask and size, parts of the keys; NumPy as the oracle."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import tvm
from tvm import tirx

from tests.schedules.cpu.kernels import composed, normal
from tests.schedules.cpu.test_attention import (
    GROUPED,
    MASKED,
    PLAIN,
    SCALE,
    SPLIT,
    expected,
    heads,
)
from tools.gpu import cases, inputs
from tvmext.arch import to_target
from tvmext.arch.cuda import from_name
from tvmext.frontends import load
from tvmext.options import Options
from tvmext.passes import lower
from tvmext.passes.attention import Band, Form, Step, attention
from tvmext.schedules.cuda.attention import FusedAttention, Workload
from tvmext.schedules.cuda.attention_choice import ByRows, Decision, Sizes, candidates, choose
from tvmext.schedules.rule import Declined, Kernel
from tvmext.schedules.rules import rules_for
from tvmext.schedules.schedule import ScheduleKernels

from .kernels import ARCH, ORDERS, machine_code, run, runs, scheduled

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
    compare(form, function, [arrays], orders)
    return decision


def compare(
    form: Form, function: Any, cases: Sequence[Sequence[np.ndarray]], orders: Sequence[int] = (7,)
) -> None:
    """Run a kernel on the inputs of every case."""
    pairs = [(arrays, order) for arrays in cases for order in orders]
    given = (({f"x{i}": x for i, x in enumerate(arrays)}, order) for arrays, order in pairs)
    allowed = TOLERANCE[form.dtype]
    for (arrays, _), (result,) in zip(pairs, runs(function, given), strict=True):
        right = expected(form, *(x.astype("float64") for x in arrays))
        np.testing.assert_allclose(result.astype("float64"), right, rtol=allowed, atol=allowed)


SIZES = [
    (1, 2, 33, 33, 64),
    (2, 1, 2, 1, 16),
    (1, 1, 17, 65, 40, 72),
    (1, 1, 5, 37, 7, 5),
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


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("rows", [1, 5])
def test_heads_that_share_keys(dtype: str, rows: int) -> None:
    """Heads of a group are rows of one tile, and masked like all others."""
    shapes = (1, 2, 3, rows, 16), (1, 2, 35, 16), (1, 2, 35, 16)
    arrays = [normal(*shape, seed=i) for i, shape in enumerate(shapes)]
    form = replace(GROUPED, extras=((0, 1, 2, 3, 4),), steps=MASKED)
    check(form, [*arrays, normal(1, 2, 3, rows, 35)], dtype=dtype)


@pytest.mark.parametrize("zero_for_nan", [False, True])
def test_minus_infinity(zero_for_nan: bool) -> None:
    """Whole rows, whole steps of keys at the start, and single scores."""
    mask = np.zeros((6, 150), "float32")
    mask[1], mask[2, :148], mask[3, ::2] = -np.inf, -np.inf, -np.inf
    form = replace(PLAIN, extras=((2, 3),), steps=MASKED, zero_for_nan=zero_for_nan)
    check(form, [*heads(1, 1, 6, 150, 16), mask], dtype="float16", orders=(1,))
    check(form, [*heads(1, 1, 6, 150, 16), mask])


def test_where_and_tanh() -> None:
    """Scores limited by tanh, a mask of truth values."""
    steps = (SCALE, Step("relax.tanh", (None,)), Step("relax.where", (0, None, -np.inf)))
    form = replace(PLAIN, extras=((None, None, 2, 3),), steps=steps, dtype="float16")
    q, k, v = (x.astype("float16") for x in heads(1, 2, 20, 40, 16))
    seen = normal(1, 1, 20, 40) > -0.5
    function, selection = scheduled(made(form, [q, k, v, seen]))
    assert selection.rule == "attention"
    (result,) = run(function, {"x0": q, "x1": k, "x2": v, "x3": seen}, 7)
    scores = np.tanh(q.astype("float64") @ k.transpose(0, 1, 3, 2) / 4)
    weights = np.exp(np.where(seen, scores, -np.inf))
    right = weights / weights.sum(-1, keepdims=True) @ v.astype("float64")
    np.testing.assert_allclose(result, right, rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_causal(dtype: str) -> None:
    """Steps of keys that no row of a tile sees are not even read: NaN in them do no harm."""
    q, k, v = (x.astype(dtype) for x in heads(1, 2, 40, 43, 32))
    steps = (SCALE, Step("relax.add", (None, Band(3, 0.0, -np.inf))))
    plan = Decision(16, 32, 16 if dtype == "float16" else 8, 2, dtype == "float16")
    function = applied(made(replace(PLAIN, steps=steps, dtype=dtype), [q, k, v]), plan)
    mask = np.where(np.arange(43) - np.arange(40)[:, None] <= 3, 0, -np.inf)[None, None]
    form = replace(PLAIN, extras=((None, None, 2, 3),), steps=MASKED)
    right = expected(form, *(x.astype("float64") for x in (q, k, v, mask)))
    bad = v.copy()
    bad[:, :, 32:] = np.nan
    given = [({"x0": q, "x1": k, "x2": value}, 7) for value in (v, bad)]
    allowed = {"rtol": TOLERANCE[dtype], "atol": TOLERANCE[dtype]}
    for rows, (result,) in zip((40, 16), runs(function, given), strict=True):
        np.testing.assert_allclose(result[:, :, :rows], right[:, :, :rows], **allowed)


def test_causal_heads_that_share_keys() -> None:
    steps = (SCALE, Step("relax.where", (Band(0, True, False), None, -1e38)))
    shapes = (1, 2, 3, 9, 16), (1, 2, 9, 16), (1, 2, 9, 16)
    q, k, v = (normal(*shape, seed=i) for i, shape in enumerate(shapes))
    function, _ = scheduled(made(replace(GROUPED, steps=steps), [q, k, v]))
    (result,) = run(function, {"x0": q, "x1": k, "x2": v}, 7)
    mask = np.triu(np.full((9, 9), -np.inf), 1)[None, None, None]
    form = replace(GROUPED, extras=((0, 1, 2, 3, 4),), steps=MASKED)
    right = expected(form, q, k, v, np.broadcast_to(mask, (1, 2, 3, 9, 9)))
    np.testing.assert_allclose(result, right, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_symbolic(dtype: str) -> None:
    form = replace(PLAIN, extras=((0, None, None, 3),), steps=MASKED, dtype=dtype)
    cases = [
        [x.astype(dtype) for x in (*heads(b, 2, s, t, 16), normal(b, 1, 1, t))]
        for b, s, t in [(2, 1, 1), (1, 37, 131), (3, 9, 0), (1, 0, 4), (0, 3, 4)]
    ]
    dims = [("b", 2, "s", 16), ("b", 2, "t", 16), ("b", 2, "t", 16), ("b", 1, 1, "t")]
    function, selection = scheduled(made(form, cases[0], dims))
    assert isinstance(selection.decision, ByRows)
    compare(form, function, cases)


def test_symbolic_parts_of_the_keys() -> None:
    """How many parts is worked out at the launch."""
    arrays = heads(1, 2, 1, 600, 32)
    dims = [(1, 2, 1, 32), (1, 2, "t", 32), (1, 2, "t", 32)]
    check(PLAIN, arrays, dims, dtype="float16", orders=ORDERS)


DECISIONS = [
    Decision(32, 64, 16, 2, True),
    Decision(64, 32, 32, 3, False),
    Decision(32, 128, 32, 2, True, blocks=99),
]


@pytest.mark.parametrize("decision", DECISIONS)
def test_tiles(decision: Decision) -> None:
    check(PLAIN, heads(1, 1, 70, 150, 32), dtype="float16", decision=decision, orders=ORDERS)


def without_barrier(number: int, code: str) -> str:
    parts = code.split("__syncthreads();")
    parts[number : number + 2] = ["".join(parts[number : number + 2])]
    return "__syncthreads();".join(parts)


def without_shuffle(code: str) -> str:
    return code.replace(
        "__shfl_xor_sync((uint)4294967295, largest_ptr[0], 1, 32)", "largest_ptr[0]"
    )


def waits_for_less(code: str) -> str:
    return code.replace("cp.async.wait_group 1;", "cp.async.wait_group 2;")


MUTATIONS = [
    ("float16", partial(without_barrier, 0)),
    ("float16", partial(without_barrier, 1)),
    ("float16", waits_for_less),
    ("float16", without_shuffle),
    ("float32", partial(without_barrier, 0)),
    ("float32", partial(without_barrier, 1)),
]


@pytest.mark.parametrize(("dtype", "mutation"), MUTATIONS)
def test_what_is_missing_is_noticed(dtype: str, mutation: Callable[[str], str]) -> None:
    arrays = [x.astype(dtype) for x in heads(1, 1, 64, 160, 64)]
    form = replace(PLAIN, dtype=dtype)
    plan = Decision(64, 32, 16, 3, True) if dtype == "float16" else Decision(64, 32, 16, 3, False)
    function = applied(made(form, arrays), plan)
    right = expected(form, *arrays)
    given = {f"x{i}": x for i, x in enumerate(arrays)}
    wrong = [result for (result,) in runs(function, [(given, o) for o in ORDERS], mutation)]
    assert not all(np.allclose(w, right, rtol=1e-2, atol=1e-2) for w in wrong)


@pytest.mark.parametrize("arch", ["sm_80", "sm_90a"])
@pytest.mark.parametrize(("dtype", "depth"), [("float16", 128), ("bfloat16", 64), ("float32", 64)])
def test_machine_code(arch: str, dtype: str, depth: int) -> None:
    """Matrix instructions, wide copies, no register in memory."""
    shape = (1, 8, 1024, depth)
    types = [(shape, dtype)] * 3
    form = replace(PLAIN, dtype=dtype)
    machine = from_name(arch)
    function, selection = scheduled(composed(lambda *x: attention(form, x), *types), machine)
    assert selection.rule == "attention"
    words = machine_code(function, machine)
    kind = {"float16": "HMMA.16816.F32", "bfloat16": "HMMA.16816.F32.BF16"}.get(dtype, "FFMA")
    assert kind in words
    assert "LDGSTS.E.BYPASS.128" in words
    assert not {word for word in words if word.startswith(("LDL", "STL"))}


def test_choices() -> None:
    """Many rows have large tiles and no parts, few rows parts; whatever is chosen fits."""
    many = Sizes(64, 1024, 1024, 64, 64, "float16", True)
    plan = choose(many, ARCH)
    assert isinstance(plan, Decision)
    assert plan.rows >= 64
    few = choose(replace(many, batch=8, rows=1), ARCH)
    assert isinstance(few, Decision)
    assert few.rows == 16
    for one in candidates(many, ARCH):
        assert one.shared(many) <= ARCH.shared_per_block
        assert one.registers(many) <= ARCH.registers_per_thread


def test_declines() -> None:
    halves = made(replace(PLAIN, dtype="float16"), [np.zeros((1, 2, 8, 16), "float16")] * 3)
    assert isinstance(FusedAttention(from_name("sm_80")).match(halves), Workload)
    assert isinstance(FusedAttention(from_name("sm_70")).match(halves), Declined)
    free = made(PLAIN, [np.zeros((1, 2, 8, 16), "float32")] * 3, [(1, 2, 8, "d")] * 3)
    assert isinstance(FusedAttention(ARCH).match(free), Declined)
    large = made(PLAIN, [np.zeros((1, 1, 8, 4096), "float32")] * 3)
    assert isinstance(FusedAttention(ARCH).match(large), Declined)


@pytest.mark.parametrize("causal", [0, 1])
def test_the_benchmark_reaches_the_rule(causal: int) -> None:
    """What tools/gpu times is one kernel of this rule; a causal mask is no operand of it."""
    case = cases.attention(1, 2, 128, 128, 64, causal)
    schedule = ScheduleKernels(ARCH, rules_for(ARCH, Options()))
    target = tvm.target.Target(to_target(ARCH))
    model = load(inputs.module(case))
    mod = lower(model, schedule, schedule.reading, target, Options(), lambda *_: None)
    assert [one.rule for one in schedule.selections] == ["attention"]
    (kernel,) = (f for f in mod.functions.values() if isinstance(f, tirx.PrimFunc))
    assert len(kernel.params) == 4
