"""Tensors that exist at the same time do not overlap, and all of them take little."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
import tvm
from hypothesis import given
from hypothesis import strategies as st
from tvm import relax

from tests.passes.modules import build, operators, random
from tvmext.passes.pipeline import lowering
from tvmext.passes.plan_memory import PlanMemory
from tvmext.passes.storage import Life, offsets, shared

LIVES = st.lists(
    st.builds(
        lambda size, first, steps: Life(size, first, first + steps),
        *(st.integers(0, 300), st.integers(0, 12), st.integers(0, 5)),
    ),
    max_size=12,
)
PLANNERS = {"ours": PlanMemory({}), "stock": relax.transform.StaticPlanBlockMemory()}


@given(LIVES)
def test_tensors_that_meet_do_not_overlap(lives: list[Life]) -> None:
    begins, total = offsets(lives, 64)
    assert all(begin % 64 == 0 and begin + life.size <= total for begin, life in zip(begins, lives))
    for (a, one), (b, other) in combinations(zip(begins, lives), 2):
        apart = a + one.size <= b or b + other.size <= a
        assert apart or not one.meets(other) or not one.size or not other.size


@given(LIVES)
def test_groups_hold_each_tensor_once_and_none_that_meet(lives: list[Life]) -> None:
    groups = shared(lives)
    assert sorted(k for group in groups for k in group) == list(range(len(lives)))
    for group in groups:
        assert not any(lives[a].meets(lives[b]) for a, b in combinations(group, 2))


def lowered(mod: tvm.IRModule, planner: str = "ours") -> tvm.IRModule:
    views = [relax.transform.LegalizeOps(), relax.transform.RewriteDataflowReshape()]
    passes = [*views, *lowering(PLANNERS[planner])]
    with tvm.target.Target("llvm"):
        return tvm.transform.Sequential(passes)(mod)


def storages(mod: tvm.IRModule) -> list[int | None]:
    """The sizes that main allocates; None if it is computed."""
    bound = (b.value for block in mod["main"].body.blocks for b in block.bindings)
    calls = (v for v in bound if isinstance(v, relax.Call))
    named = (c for c in calls if getattr(c.op, "name", "") == "relax.vm.alloc_storage")
    shapes = (c.args[0] for c in named)
    return [int(s.values[0]) if isinstance(s, relax.ShapeExpr) else None for s in shapes]


def run(mod: tvm.IRModule, *inputs: np.ndarray) -> np.ndarray:
    executable = relax.build(mod, "llvm", relax_pipeline=None)
    machine = relax.VirtualMachine(executable, tvm.cpu())
    return machine["main"](*map(tvm.runtime.tensor, inputs)).numpy()


def test_gaps_are_used() -> None:
    def body(b: relax.BlockBuilder, x: relax.Var) -> relax.Expr:
        wide = b.emit(relax.op.concat([x] * 8, 0))
        half = b.emit(relax.op.exp(b.emit(relax.op.strided_slice(wide, [0], [0], [32]))))
        other = b.emit(relax.op.sin(half))
        return relax.op.add(other, relax.op.cos(b.emit(relax.op.negative(other))))

    mod = build([("x", (8, 16), "float32")], body)
    row, x = 16 * 4, random(8, 16)
    result = 32 * row
    assert storages(lowered(mod)) == [(64 + 32) * row, result]
    assert storages(lowered(mod, "stock")) == [64 * row, 32 * row, 32 * row, result]
    np.testing.assert_allclose(run(lowered(mod), x), run(lowered(mod, "stock"), x))


def test_alike_tensors_are_one_variable() -> None:
    def body(b: relax.BlockBuilder, x: relax.Var) -> relax.Expr:
        for _ in range(9):
            x = b.emit(relax.op.exp(x))
        return x

    found = operators(lowered(build([("x", (8, 16), "float32")], body)))
    assert found["relax.vm.alloc_tensor"] == 2 + 1  # two in turns, and the result


@pytest.mark.parametrize("bound", [None, 64])
def test_symbolic_sizes_share(bound: int | None) -> None:
    n = tvm.tirx.Var("n", "int64")

    def body(b: relax.BlockBuilder, x: relax.Var) -> relax.Expr:
        wide = b.emit(relax.op.concat([x, x], 0))
        wider = b.emit(relax.op.exp(b.emit(relax.op.concat([wide, wide], 0))))
        return relax.op.sum(b.emit(relax.op.sin(b.emit(relax.op.cos(wider)))), axis=1)

    mod = build([("x", (n, 16), "float32")], body)
    if bound:
        mod["main"] = mod["main"].with_attr("tir_var_upper_bound", {"n": bound})
    found = storages(lowered(mod))
    assert len(found) == (2 if bound else 3)  # one of them the result
    for rows in (0, 1, 3, 64):
        x = random(rows, 16)
        expected = np.tile(np.sin(np.cos(np.exp(x))).sum(1), 4)
        np.testing.assert_allclose(run(lowered(mod), x), expected, rtol=1e-4, atol=1e-4)


def test_what_may_outlive_the_call_has_its_own_memory() -> None:
    def body(b: relax.BlockBuilder, x: relax.Var) -> list[relax.Expr]:
        made = b.emit(relax.op.exp(x))
        flat = b.emit(relax.op.reshape(made, (128,)))
        return [flat, relax.op.cos(b.emit(relax.op.sin(made)))]

    mod = lowered(build([("x", (8, 16), "float32")], body))
    assert storages(mod) == [8 * 16 * 4] * 3  # both results and the sine
