"""select and ScheduleKernels: the first rule that matches, and weights in the layout it wants."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import tvm
from tvm import relax, tirx
from tvm.relax import op, transform

from tests.passes.modules import assert_same, build, random
from tvmext.arch import FAMILIES
from tvmext.errors import InternalError
from tvmext.passes.constants import constant
from tvmext.schedules.layout import relayout
from tvmext.schedules.rule import Declined, Kernel, Layout, Scheduled
from tvmext.schedules.schedule import ScheduleKernels
from tvmext.schedules.select import select

ARCH = FAMILIES["x86-64-v3"]


@dataclass(frozen=True)
class Tile:
    rows: int


class Turn:
    """Takes matmuls with 2-d weights and wants those transposed, if they are constants."""

    name = "turn"

    def match(self, kernel: Kernel) -> tuple[int, ...] | Declined:
        weight = kernel.func.params[1]
        if 1 not in kernel.constant_args or len(weight.ty.shape) != 2:
            return Declined("no constant weight")
        return tuple(int(dim) for dim in weight.ty.shape)

    def choose(self, workload: tuple[int, ...], arch: object) -> Tile:
        return Tile(workload[0])

    def apply(
        self, kernel: Kernel, workload: tuple[int, ...], decision: Tile, arch: object
    ) -> Scheduled:
        schedule = tvm.s_tir.Schedule(kernel.func)
        schedule.transform_layout(schedule.get_sblock("matmul"), ("read", 1), lambda i, j: (j, i))
        index_map = tirx.IndexMap.from_func(lambda i, j: (j, i))
        return Scheduled(schedule.mod["main"], {1: Layout(index_map, workload[::-1])})


class Leave:
    """Takes everything and does nothing."""

    name = "leave"

    def match(self, kernel: Kernel) -> str:
        return "anything"

    def choose(self, workload: str, arch: object) -> None:
        return None

    def apply(self, kernel: Kernel, workload: str, decision: None, arch: object) -> Scheduled:
        return Scheduled(kernel.func)


def fused(mod: tvm.IRModule) -> tvm.IRModule:
    for step in (
        transform.LegalizeOps(),
        transform.AnnotateTIROpPattern(),
        transform.FuseOps(),
        transform.FuseTIR(),
        transform.DeadCodeElimination(),
    ):
        mod = step(mod)
    return mod


def two_layers() -> tvm.IRModule:
    """Two matmuls with different weights that share one PrimFunc, then one without weights."""

    def body(bb: relax.BlockBuilder, x: relax.Var) -> relax.Expr:
        y = bb.emit(op.matmul(x, constant(random(4, 4, seed=1))))
        y = bb.emit(op.matmul(y, constant(random(4, 4, seed=2))))
        return bb.emit(op.matmul(y, bb.emit(op.permute_dims(x))))

    return fused(build([("x", (3, 4), "float32")], body))


def test_weights_follow_the_layout_of_their_kernel() -> None:
    mod = two_layers()
    schedule = ScheduleKernels(ARCH, [Turn(), Leave()])
    scheduled = schedule(mod)
    assert [one.rule for one in schedule.selections].count("turn") == 1
    assert_same(mod, scheduled, random(3, 4))


def test_the_input_module_is_not_changed() -> None:
    mod = two_layers()
    text = mod.script()
    ScheduleKernels(ARCH, [Turn(), Leave()])(mod)
    assert mod.script() == text


def test_a_kernel_that_is_once_called_without_weights_keeps_its_layout() -> None:
    def body(bb: relax.BlockBuilder, x: relax.Var) -> relax.Expr:
        y = bb.emit(op.matmul(x, constant(random(4, 4))))
        return bb.emit(op.matmul(y, y))

    mod = fused(build([("x", (4, 4), "float32")], body))
    schedule = ScheduleKernels(ARCH, [Turn(), Leave()])
    scheduled = schedule(mod)
    assert {one.rule for one in schedule.selections} == {"leave"}
    assert_same(mod, scheduled, random(4, 4))


def test_symbolic_rows() -> None:
    n = tirx.Var("n", "int64")
    mod = fused(
        build(
            [("x", (n, 4), "float32")],
            lambda bb, x: bb.emit(op.matmul(x, constant(random(4, 2)))),
        )
    )
    assert_same(mod, ScheduleKernels(ARCH, [Turn(), Leave()])(mod), random(5, 4))


def test_decisions_are_plain_data() -> None:
    schedule = ScheduleKernels(ARCH, [Turn(), Leave()])
    schedule(two_layers())
    assert {"rule": "turn", "decision": {"rows": 4}} in schedule.decisions().values()


def test_select_keeps_the_reasons_of_those_that_declined() -> None:
    functions = two_layers().functions_items()
    name, func = next((v.name_hint, f) for v, f in functions if v.name_hint == "matmul")
    _, selection = select(Kernel(name, func), ARCH, [Turn(), Leave()])
    assert selection.rule == "leave"
    assert selection.declined == (("turn", "no constant weight"),)
    with pytest.raises(InternalError, match="turn: no constant weight"):
        select(Kernel(name, func), ARCH, [Turn()])


def test_relayout_pads_with_zeros() -> None:
    weight = random(5, 3)
    layout = Layout(tirx.IndexMap.from_func(lambda i, j: (j // 2, i, j % 2)), (2, 5, 2))
    packed = relayout(weight, layout)
    padded = np.pad(weight, ((0, 0), (0, 1)))
    np.testing.assert_array_equal(packed, padded.reshape(5, 2, 2).transpose(1, 0, 2))
