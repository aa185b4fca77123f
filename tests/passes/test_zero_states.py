"""ZeroStates: recurrent kernels begin with zeros by themselves."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import tvm
from tvm import relax, tirx
from tvm.relax import op

from tests.passes.modules import assert_same, build, operators, random
from tests.schedules.cpu.test_recurrence import form
from tvmext.frontends.recurrence import kernel
from tvmext.passes.zero_states import ZeroStates

HIDDEN, STEPS = 6, 3
State = Callable[[relax.BlockBuilder, Any], relax.Expr]


def zeros(_: relax.BlockBuilder, batch: Any) -> relax.Expr:
    return op.zeros((1, batch, HIDDEN), "float32")


def part_of_more(bb: relax.BlockBuilder, batch: Any) -> relax.Expr:
    """As exporters write it: the states of all layers, and a slice of them."""
    value = relax.const(np.zeros((), "float32"))
    every = bb.emit(op.full((batch, 4, HIDDEN), value, "float32"))
    turned = bb.emit(op.permute_dims(every, [1, 0, 2]))
    return op.strided_slice(turned, [0], [2], [3])


def constant(_: relax.BlockBuilder, batch: Any) -> relax.Expr:
    return relax.const(np.zeros((1, 2, HIDDEN), "float32"))


def one(_: relax.BlockBuilder, batch: Any) -> relax.Expr:
    return op.full((1, batch, HIDDEN), relax.const(np.float32(1)), "float32")


def cell(kind: str, states: list[State], batch: Any) -> tvm.IRModule:
    """``y, hn, .. = kind(x, r, states)`` of one direction."""
    told = form(kind)
    gates = {"GRU": 3, "LSTM": 4}[kind]
    known = batch if isinstance(batch, int) else None
    weight = random(1, gates, HIDDEN, HIDDEN, seed=1)

    def body(bb: relax.BlockBuilder, x: relax.Var) -> list[relax.Expr]:
        func = bb.add_func(kernel(told, STEPS, known, HIDDEN, "float32"), kind.lower())
        starts = [bb.emit(state(bb, batch)) for state in states]
        last = relax.TensorType((1, batch, HIDDEN), "float32")
        types = [relax.TensorType((STEPS, 1, batch, HIDDEN), "float32"), *(last for _ in states)]
        # y [steps, directions, batch, hidden]
        args = relax.Tuple([x, relax.const(weight), *starts])
        every = bb.emit(relax.call_tir(func, args, types))
        return [bb.emit(relax.TupleGetItem(every, k)) for k in range(len(types))]

    return build([("x", (STEPS, batch, 1, gates, HIDDEN), "float32")], body)


@pytest.mark.parametrize(
    ("kind", "states"),
    [
        ("GRU", [zeros]),
        ("GRU", [part_of_more]),
        ("LSTM", [zeros, part_of_more]),
    ],
)
def test_fires(kind: str, states: list[State]) -> None:
    mod = cell(kind, states, tirx.Var("batch", "int64"))
    done = ZeroStates()(mod)
    assert operators(done) == {"relax.call_tir": 1}
    gates = 3 if kind == "GRU" else 4
    assert_same(mod, done, random(STEPS, 2, 1, gates, HIDDEN))


def test_constants() -> None:
    mod = cell("GRU", [constant], 2)
    done = ZeroStates()(mod)
    (call,) = [b.value for b in done["main"].body.blocks[0].bindings][:1]
    assert len(call.args[1].fields) == 2
    assert_same(mod, done, random(STEPS, 2, 1, 3, HIDDEN))


@pytest.mark.parametrize(("kind", "states"), [("GRU", [one]), ("LSTM", [zeros, one])])
def test_must_not_fire(kind: str, states: list[State]) -> None:
    mod = cell(kind, states, tirx.Var("batch", "int64"))
    done = ZeroStates()(mod)
    assert operators(done) == operators(mod)
