"""Loaders inside of the kernels that read them: which are joined, with the same results."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
import tvm
from tvm import relax, tirx
from tvm.relax import op, transform

from tests.passes.modules import assert_same, build, operators, random
from tvmext.arch import FAMILIES
from tvmext.passes.virtual.check import movement_kernels
from tvmext.passes.virtual.join import JoinLoaders
from tvmext.passes.virtual.views import Views
from tvmext.passes.virtual.virtualize import VirtualTensors
from tvmext.schedules.cpu import RULES
from tvmext.schedules.schedule import ScheduleKernels

N = tirx.Var("n", "int64")
SCHEDULE = ScheduleKernels(FAMILIES["x86-64-v4"], RULES)


def joined(mod: tvm.IRModule, memory: bool = False) -> tvm.IRModule:
    """Up to what is scheduled."""
    passes = [
        VirtualTensors(),
        transform.LegalizeOps(),
        transform.AnnotateTIROpPattern(),
        transform.FuseOps(),
        transform.FuseTIR(),
        JoinLoaders(SCHEDULE.reading, memory),
        Views(),
        transform.DeadCodeElimination(),
    ]
    before = mod.script()
    after = tvm.transform.Sequential(passes)(mod)
    assert mod.script() == before, "the module was changed in place"
    relax.analysis.well_formed(after)  # raises
    return after


def rows_of_windows(bb: Any, x: relax.Var, w: relax.Var) -> relax.Expr:
    windows = bb.emit(
        op.permute_dims(bb.emit(op.reshape(x, (N, 4, 8, 4, 8, 32))), [0, 1, 3, 2, 4, 5])
    )
    return op.matmul(bb.emit(op.reshape(windows, (N * 16, 64, 32))), w)


def rolled_rows(bb: Any, x: relax.Var, w: relax.Var) -> relax.Expr:
    back = op.concat([bb.emit(op.strided_slice(x, [1], [k], [m])) for k, m in ((3, 32), (0, 3))], 1)
    return op.matmul(bb.emit(back), w)


def heads(bb: Any, x: relax.Var, w: relax.Var) -> relax.Expr:
    turned = bb.emit(op.permute_dims(bb.emit(op.reshape(x, (N, 32, 32, 8, 4))), [0, 1, 3, 2, 4]))
    return op.matmul(bb.emit(op.reshape(turned, (N, 256, 128))), w)


def normed(bb: Any, x: relax.Var, w: relax.Var) -> relax.Expr:
    part = bb.emit(op.strided_slice(x, [1, 2], [4, 2], [20, 30]))
    return op.nn.softmax(part, 3)


CASES: dict[str, tuple[Callable[..., relax.Expr], tuple[int, int]]] = {
    "windows": (rows_of_windows, (32, 48)),
    "rolled": (rolled_rows, (32, 48)),
    "heads": (heads, (128, 48)),
    "normed": (normed, (32, 48)),
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("n", [2, N], ids=str)
def test_no_kernel_is_left_that_only_moves(name: str, n: Any) -> None:
    body, weight = CASES[name]

    def main(bb: Any, x: relax.Var, w: relax.Var) -> relax.Expr:
        return body(bb, bb.emit(op.nn.softmax(x)), w)

    mod = build([("x", (N, 32, 32, 32), "float32"), ("w", weight, "float32")], main)
    if n != N:
        mod = relax.transform.BindSymbolicVars({"n": n})(mod)
    after = joined(mod)
    assert movement_kernels(after) == []
    assert operators(after)["relax.call_tir"] == 2
    assert_same(mod, after, random(2, 32, 32, 32), random(*weight, seed=1))


def test_all_readers_or_none() -> None:
    """The output needs the tensor in memory, so the product reads it there."""

    def body(bb: Any, x: relax.Var, w: relax.Var) -> list[relax.Expr]:
        turned = bb.emit(op.permute_dims(bb.emit(op.nn.softmax(x)), [1, 0, 2]))
        return [op.matmul(turned, w), turned]

    mod = build([("x", (8, 32, 64), "float32"), ("w", (64, 48), "float32")], body)
    after = joined(mod)
    assert [kernel.nodes for kernel in movement_kernels(after)] == [("permute_dims",)]
    assert_same(mod, after, random(8, 32, 64), random(64, 48, seed=1))


def shuffled(bb: Any, x: relax.Var, w: relax.Var) -> relax.Expr:
    """Channels far apart become neighbours, and a window reads each of them nine times."""
    x = bb.emit(op.nn.softmax(x))
    turned = bb.emit(op.permute_dims(bb.emit(op.reshape(x, (1, 28, 28, 4, 16))), [0, 1, 2, 4, 3]))
    channels = bb.emit(op.reshape(turned, (1, 28, 28, 64)))
    return op.nn.conv2d(channels, w, groups=64, padding=1, data_layout="NHWC", kernel_layout="OHWI")


@pytest.mark.parametrize("memory", [False, True])
def test_what_is_dearer_inside_stays(memory: bool) -> None:
    mod = build([("x", (1, 28, 28, 64), "float32"), ("w", (64, 3, 3, 1), "float32")], shuffled)
    after = joined(mod, memory)
    left = movement_kernels(after)
    assert [kernel.reason for kernel in left] == ([] if memory else ["priced"])
    assert_same(mod, after, random(1, 28, 28, 64), random(64, 3, 3, 1, seed=1))


@pytest.mark.parametrize("depth, rows, left", [(512, 2048, 1), (128, 2048, 0), (512, 256, 0)])
def test_columns_of_more_lines_than_l1_holds_are_turned_before(
    depth: int, rows: int, left: int
) -> None:
    """A tile of rows goes down the columns once for every panel of the weight."""

    def body(bb: Any, x: relax.Var, w: relax.Var) -> relax.Expr:
        return op.matmul(bb.emit(op.permute_dims(bb.emit(op.nn.softmax(x)))), w)

    mod = build([("x", (depth, rows), "float32"), ("w", (depth, 256), "float32")], body)
    after = joined(mod)
    assert [kernel.reason for kernel in movement_kernels(after)] == ["priced"] * left
    assert_same(mod, after, random(depth, rows), random(depth, 256, seed=1))


def halves(bb: Any, x: relax.Var) -> tuple[relax.Var, relax.Expr]:
    """Rows, and the product of two parts of them, head by head."""
    x = bb.emit(op.nn.softmax(x))
    split = bb.emit(op.reshape(x, (64, 3, 8, 16)))
    parts = [
        bb.emit(op.permute_dims(bb.emit(op.squeeze(part, [1])), [1, 0, 2]))
        for part in (bb.emit(op.strided_slice(split, [1], [k], [k + 1])) for k in (0, 2))
    ]
    return x, op.matmul(parts[0], bb.emit(op.permute_dims(parts[1], [0, 2, 1])))


def test_two_loaders_of_one_kernel() -> None:
    def body(bb: Any, x: relax.Var) -> list[relax.Expr]:
        rows, product = halves(bb, x)
        return [bb.emit(product), op.sum(rows, [0])]

    mod = build([("x", (64, 384), "float32")], body)
    after = joined(mod)
    assert movement_kernels(after) == []
    assert operators(after)["relax.call_tir"] == 3
    assert_same(mod, after, random(64, 384))


def test_a_source_does_not_live_longer_at_the_peak() -> None:
    """The rows are larger than both parts, and nobody else reads them beside the product."""
    mod = build([("x", (64, 384), "float32")], lambda bb, x: halves(bb, x)[1])
    left = movement_kernels(joined(mod))
    assert [kernel.reason for kernel in left] == ["priced", "priced"]
    assert "takes more memory" in left[0].detail


def test_a_deep_chain_of_splits_and_concats_is_cut() -> None:
    """Along three axes in turn: composed as a whole, it would have a box for every element."""

    def body(bb: Any, x: relax.Var) -> list[relax.Expr]:
        for turn in range(30):
            axis, size = turn % 3, (6, 8, 10)[turn % 3]
            cuts = [1 + turn % 3, 4 + turn % 2]
            ends = [0, *cuts, size]
            parts = [
                bb.emit(op.strided_slice(x, [axis], [low], [high])) for low, high in pairwise(ends)
            ]
            x = bb.emit(
                op.concat(parts[::-1] if turn % 2 else [parts[1], parts[2], parts[0]], axis)
            )
        return [bb.emit(op.nn.softmax(x)), op.nn.relu(x)]

    mod = build([("x", (6, 8, 10), "float32")], body)
    after = joined(mod)
    assert operators(after)["relax.call_tir"] < 30
    left = [kernel for kernel in movement_kernels(after) if kernel.reason != "forced"]
    assert all("places" in kernel.detail for kernel in left)
    assert_same(mod, after, random(6, 8, 10))
