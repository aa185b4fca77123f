"""Inputs given away are updated in place: only the new elements are written, results stay right."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import tvm
from tvm import relax, tirx
from tvm.relax import op, transform

from tests.passes.modules import build, operators, random
from tests.passes.virtual.test_virtualize import virtual
from tvmext.frontends import load
from tvmext.options import Options
from tvmext.passes.pipeline import lowering, pipeline
from tvmext.passes.plan_memory import PlanMemory
from tvmext.passes.virtual.check import movement_kernels
from tvmext.passes.virtual.donate import UpdateDonated
from tvmext.passes.virtual.views import Views

N = tirx.Var("n", "int64")
IN_PLACE = "relax.call_tir_inplace"
CACHE = ("x", (6, 2, 4), "float32")
ROW = ("row", (1, 2, 4), "float32")
AT = ("at", (1, 1), "int64")
MERGING = ("EliminateCommonSubexpr", "FuseOps", "FuseTIR", "FoldConstants", "JoinLoaders")


def donated(mod: tvm.IRModule, positions: Sequence[int] = (0,)) -> tvm.IRModule:
    """Up to what is scheduled."""
    passes = [
        transform.LegalizeOps(),
        transform.AnnotateTIROpPattern(),
        transform.FuseOps(),
        transform.FuseTIR(),
        Views(),
        UpdateDonated(positions),
    ]
    with tvm.target.Target("llvm"):
        after = tvm.transform.Sequential(passes)(virtual(mod))
    relax.analysis.well_formed(after)  # raises
    return after


def runner(mod: tvm.IRModule) -> Callable[..., list[tvm.runtime.Tensor]]:
    """Main on TVM tensors, which it may overwrite."""
    with tvm.target.Target("llvm"):
        lowered = tvm.transform.Sequential(lowering(PlanMemory({})))(mod)
    machine = relax.VirtualMachine(relax.build(lowered, "llvm", relax_pipeline=None), tvm.cpu())

    def call(*tensors: tvm.runtime.Tensor) -> list[tvm.runtime.Tensor]:
        result = machine["main"](*tensors)
        return [result] if isinstance(result, tvm.runtime.Tensor) else list(result)

    return call


def written(bb: Any, cache: relax.Var, at: relax.Var, row: relax.Var) -> relax.Expr:
    """The row on the second axis, as caches of keys are written."""
    turned = bb.emit(op.permute_dims(cache, [1, 0, 2]))
    back = bb.emit(op.permute_dims(turned, [1, 0, 2]))
    return bb.emit(op.scatter_nd(back, at, bb.emit(op.exp(row)), "update"))


@pytest.mark.parametrize("n", [6, N], ids=str)
def test_rows_of_a_cache(n: Any) -> None:
    """With what computes the row, and a reader of the whole cache after it."""

    def body(bb: Any, cache: relax.Var, at: relax.Var, row: relax.Var) -> Any:
        full = written(bb, cache, at, row)
        return [full, op.sum(full, axis=[0])]

    after = donated(build([("x", (n, 2, 4), "float32"), AT, ROW], body))
    assert operators(after)[IN_PLACE] == 1
    assert not movement_kernels(after)
    call = runner(after)
    for at in (0, 3, 5, -1, -6, 6, -7, 2**62, -(2**62)):
        cache, row = random(6, 2, 4), random(1, 2, 4, seed=1)
        given = tvm.runtime.tensor(cache)
        full, total = call(given, tvm.runtime.tensor(np.array([[at]])), tvm.runtime.tensor(row))
        if -6 <= at < 6:
            cache[at] = np.exp(row[0])
        np.testing.assert_allclose(full.numpy(), cache, rtol=1e-6)
        np.testing.assert_allclose(total.numpy(), cache.sum(0), rtol=1e-5)
        assert (given.numpy() == full.numpy()).all()


def test_slices_around_new_elements() -> None:
    """cache[2:4] = rows, as a concat of slices; the last written of what overlaps wins."""

    def body(bb: Any, cache: relax.Var, at: relax.Var, rows: relax.Var) -> Any:
        before = bb.emit(op.strided_slice(cache, [0], [0], [2]))
        behind = bb.emit(op.strided_slice(cache, [0], [4], [6]))
        new = bb.emit(op.concat([before, rows, behind], 0))
        return op.scatter_nd(new, at, bb.emit(op.strided_slice(rows, [0], [0], [1])), "update")

    after = donated(build([CACHE, AT, ("rows", (2, 2, 4), "float32")], body))
    assert operators(after)[IN_PLACE] == 1
    for at in (2, 3, 5):
        cache, rows = random(6, 2, 4), random(2, 2, 4, seed=1)
        inputs = map(tvm.runtime.tensor, (cache, np.array([[at]]), rows))
        (result,) = runner(after)(*inputs)
        cache[2:4] = rows
        cache[at] = rows[0]
        assert (result.numpy() == cache).all()


def test_who_reads_the_old_values_comes_first() -> None:
    """And of two updates of one input, one is a copy."""

    def body(bb: Any, cache: relax.Var, at: relax.Var, row: relax.Var) -> Any:
        full = written(bb, cache, at, row)
        return [full, bb.emit(op.scatter_nd(cache, at, row, "update")), op.sum(cache, axis=[0])]

    after = donated(build([CACHE, AT, ROW], body))
    assert operators(after)[IN_PLACE] == 1
    cache, row = random(6, 2, 4), random(1, 2, 4, seed=1)
    results = runner(after)(*map(tvm.runtime.tensor, (cache, np.array([[4]]), row)))
    one, other = cache.copy(), cache.copy()
    one[4], other[4] = np.exp(row[0]), row[0]
    for result, expected in zip(results, (one, other, cache.sum(0)), strict=True):
        np.testing.assert_allclose(result.numpy(), expected, rtol=1e-5)


@pytest.mark.parametrize("n", [6, N], ids=str)
def test_updates_of_two_inputs_are_one_kernel(n: Any) -> None:
    """Which then does more than to move."""

    def body(bb: Any, keys: relax.Var, values: relax.Var, at: relax.Var, row: relax.Var) -> Any:
        moved = bb.emit(op.scatter_nd(values, at, row, "update"))
        return [moved, written(bb, keys, at, row), op.sum(moved, axis=[0])]

    inputs = [("k", (n, 2, 4), "float32"), ("v", (n, 2, 4), "float32"), AT, ROW]
    after = donated(build(inputs, body), (0, 1))
    assert operators(after)[IN_PLACE] == 1 and not movement_kernels(after)
    keys, values, row = random(6, 2, 4), random(6, 2, 4, seed=2), random(1, 2, 4, seed=1)
    given = [tvm.runtime.tensor(x) for x in (keys, values, np.array([[4]]), row)]
    moved, full, total = runner(after)(*given)
    keys[4], values[4] = np.exp(row[0]), row[0]
    for result, expected in ((moved, values), (full, keys), (total, values.sum(0))):
        np.testing.assert_allclose(result.numpy(), expected, rtol=1e-5)
    for result, tensor in ((moved, given[1]), (full, given[0])):
        assert (result.numpy() == tensor.numpy()).all()


def test_updates_that_read_each_other_are_done_in_turn() -> None:
    """The row of the first is one of the second's old ones."""

    def body(bb: Any, keys: relax.Var, values: relax.Var, at: relax.Var, row: relax.Var) -> Any:
        old = bb.emit(op.strided_slice(values, [0], [2], [3]))
        first = bb.emit(op.scatter_nd(keys, at, bb.emit(op.exp(old)), "update"))
        back = bb.emit(op.strided_slice(keys, [0], [1], [2]))
        return [first, bb.emit(op.scatter_nd(values, at, bb.emit(op.add(row, back)), "update"))]

    inputs = [("k", (6, 2, 4), "float32"), ("v", (6, 2, 4), "float32"), AT, ROW]
    after = donated(build(inputs, body), (0, 1))
    for position in (1, 2):
        keys, values, row = random(6, 2, 4), random(6, 2, 4, seed=2), random(1, 2, 4, seed=1)
        given = [tvm.runtime.tensor(x) for x in (keys, values, np.array([[position]]), row)]
        results = runner(after)(*given)
        new = np.exp(values[2]), row[0] + keys[1]
        keys[position], values[position] = new
        for result, expected in zip(results, (keys, values), strict=True):
            np.testing.assert_allclose(result.numpy(), expected, rtol=1e-5)


def rolled(bb: Any, cache: relax.Var, at: relax.Var, row: relax.Var) -> relax.Expr:
    return op.concat([bb.emit(op.strided_slice(cache, [0], [1], [6])), row], 0)


def both(bb: Any, cache: relax.Var, at: relax.Var, row: relax.Var) -> list[relax.Expr]:
    full = written(bb, cache, at, row)
    return [full, op.sum(full, axis=[0]), op.sum(cache, axis=[0])]


def passed_on(bb: Any, cache: relax.Var, at: relax.Var, row: relax.Var) -> list[relax.Expr]:
    return [written(bb, cache, at, row), cache]


@pytest.mark.parametrize("body", [rolled, both, passed_on], ids=lambda body: body.__name__)
def test_copies_where_it_has_to(body: Callable[..., Any]) -> None:
    assert operators(donated(build([CACHE, AT, ROW], body)))[IN_PLACE] == 0
    assert operators(donated(build([CACHE, AT, ROW], written), ()))[IN_PLACE] == 0


def test_no_pass_after_it_merges_writers() -> None:
    """Two equal calls that write are not one: a first writer would be lost (TVM's CSE does it)."""
    model = load(build([CACHE, AT, ROW], written))
    options = Options(donate=(model.inputs[0].name,))
    passes = pipeline(model, PlanMemory({}), lambda *_: ("", 0.0), "llvm", options)
    names = [each.info.name for each in passes]
    later = names[names.index("UpdateDonated") :]
    assert not set(MERGING).intersection(later)
