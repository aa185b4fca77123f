"""Recurrent networks on a GPU: a block has a sequence, its threads share the units."""

from __future__ import annotations

import numpy as np
import pytest
import tvm

from tests.schedules.cpu.kernels import call as compute
from tests.schedules.cpu.test_recurrence import form
from tvmext.frontends.recurrence import GATES, kernel
from tvmext.schedules.rule import Kernel

from .kernels import ARCH, ORDERS, run, scheduled
from .test_rows import without_barriers


def drawn(one, hidden: int, steps: int, batch: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    directions, gates = len(one.backward), GATES[one.kind]
    shapes = {"x": (steps, batch, directions, gates, hidden), "peepholes": (directions, 3, hidden)}
    shapes |= {"r": (directions, gates, hidden, hidden)}
    return {
        name: rng.integers(-1, steps + 2, batch)
        if name == "lengths"
        else rng.standard_normal(shapes.get(name, (directions, batch, hidden))).astype("float32")
        for name in one.operands
    }


@pytest.mark.parametrize(
    ("kind", "directions", "options", "hidden", "steps", "batch", "free"),
    [
        ("LSTM", 2, {"extras": ("peepholes", "lengths")}, 20, 4, 3, True),
        ("GRU", 1, {"from_zero": True}, 37, 3, 2, False),
        ("RNN", 2, {"extras": ("lengths",)}, 520, 2, 1, False),
        ("LSTM", 1, {}, 8, 2, 0, True),
    ],
)
def test_cells(kind, directions, options, hidden, steps, batch, free) -> None:
    one = form(kind, directions, **options)
    plain = kernel(one, None if free else steps, None if free else batch, hidden, "float32")
    function, selection = scheduled(Kernel("cell", plain))
    assert selection.rule == "recurrence"
    arrays = drawn(one, hidden, steps, batch)
    for order in ORDERS if steps == 3 else ORDERS[2:]:
        for got, want in zip(run(function, arrays, order), reference(plain, arrays), strict=True):
            np.testing.assert_allclose(got, want, rtol=2e-4, atol=2e-5)


def reference(plain, arrays):
    built = tvm.tirx.build(tvm.IRModule({"main": plain.with_attr("global_symbol", "main")}), "llvm")
    return compute(built["main"], plain, arrays, tvm.cpu())


def test_a_missing_barrier_is_noticed() -> None:
    one = form("RNN")
    plain = kernel(one, 4, 1, 70, "float32")
    function, _ = scheduled(Kernel("cell", plain), ARCH)
    arrays = drawn(one, 70, 4, 1)
    right = reference(plain, arrays)[0]
    wrong = [run(function, arrays, order, without_barriers)[0] for order in ORDERS]
    assert not all(np.allclose(w, right, rtol=1e-3, atol=1e-4) for w in wrong)
