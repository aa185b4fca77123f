"""Transposed convolutions: every phase is a kernel of its own that writes into one output."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import tvm
from tvm import relax, tirx
from tvm.relax import op, transform

from tests.passes.modules import build, run
from tests.schedules.cpu.kernels import ARCH, kernel, normal
from tvmext.arch import to_target
from tvmext.passes.legalize import LEGALIZE
from tvmext.schedules.cpu import RULES
from tvmext.schedules.cpu.phases import Phases
from tvmext.schedules.rule import Declined
from tvmext.schedules.schedule import ScheduleKernels

ONE_D: dict[str, Any] = {"data_layout": "NWC", "kernel_layout": "IWO"}
TWO_D: dict[str, Any] = {"data_layout": "NHWC", "kernel_layout": "IHWO"}
THREE_D: dict[str, Any] = {"data_layout": "NDHWC", "kernel_layout": "IDHWO"}

CASES = {
    "k2s2": (op.nn.conv2d_transpose, (1, 5, 6, 8), (8, 2, 2, 24), {**TWO_D, "strides": 2}),
    "k3s2p1": (
        op.nn.conv2d_transpose,
        (2, 4, 9, 8),
        (8, 3, 3, 17),
        {**TWO_D, "strides": 2, "padding": 1, "output_padding": (1, 0)},
    ),
    "dilated": (
        op.nn.conv2d_transpose,
        (1, 5, 4, 8),
        (8, 3, 3, 16),
        {**TWO_D, "strides": (3, 2), "dilation": (2, 2), "padding": (2, 1)},
    ),
    "depthwise": (
        op.nn.conv2d_transpose,
        (1, 6, 7, 20),
        (20, 4, 4, 1),
        {**TWO_D, "strides": 2, "padding": 1, "groups": 20},
    ),
    "groups": (
        op.nn.conv2d_transpose,
        (1, 6, 7, 16),
        (16, 4, 4, 12),
        {**TWO_D, "strides": 2, "padding": 1, "groups": 2},
    ),
    "a phase without taps": (
        op.nn.conv1d_transpose,
        (1, 9, 8),
        (8, 1, 16),
        {**ONE_D, "strides": 3},
    ),
    "1d": (op.nn.conv1d_transpose, (2, 9, 8), (8, 4, 16), {**ONE_D, "strides": 2, "padding": 1}),
    "3d": (
        op.nn.conv3d_transpose,
        (1, 3, 4, 5, 8),
        (8, 2, 3, 3, 16),
        {**THREE_D, "strides": 2, "padding": (0, 1, 1)},
    ),
}


def lowered(name: str, symbolic: bool, constant: bool = True) -> tuple[tvm.IRModule, list]:
    """A transposed convolution with bias and SiLU, fused, and arrays for it."""
    call, shape, weight, attrs = CASES[name]
    channels = weight[-1] * attrs.get("groups", 1)
    x, w, b = normal(*shape), normal(*weight, seed=1), normal(channels, seed=2)
    dims: list[Any] = list(shape)
    if symbolic:
        dims[:-1] = [tirx.Var(f"d{i}", "int64") for i in range(len(shape) - 1)]

    def body(_: Any, x: relax.Expr, *rest: relax.Expr) -> relax.Expr:
        weight = relax.const(w) if constant else rest[0]
        return op.nn.silu(op.add(call(x, weight, **attrs), relax.const(b)))

    rest = [] if constant else [("w", w.shape, "float32")]
    mod = build([("x", dims, "float32"), *rest], body)
    for step in (
        transform.LegalizeOps(LEGALIZE),
        transform.AnnotateTIROpPattern(),
        transform.FuseOps(),
        transform.FuseTIR(),
    ):
        mod = step(mod)
    return mod, [x] if constant else [x, w]


SYMBOLIC = ("k3s2p1", "1d", "a phase without taps")


@pytest.mark.parametrize(
    "name, symbolic", [*((name, False) for name in CASES), *((name, True) for name in SYMBOLIC)]
)
def test_equals_the_unscheduled_kernel(name: str, symbolic: bool) -> None:
    mod, arrays = lowered(name, symbolic)
    (expected,) = run(mod, *arrays)
    schedule = ScheduleKernels(replace(ARCH, cores=2), RULES)
    result = schedule(mod)
    assert [one.rule for one in schedule.selections] == ["phases"]
    executable = tvm.compile(result, tvm.target.Target(to_target(ARCH)))
    machine = relax.VirtualMachine(executable, tvm.cpu())
    actual = machine["main"](*map(tvm.runtime.tensor, arrays)).numpy()
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-5)


def test_a_weight_known_at_run_time_only() -> None:
    mod, arrays = lowered("k3s2p1", False, constant=False)
    (expected,) = run(mod, *arrays)
    schedule = ScheduleKernels(ARCH, RULES)
    (actual,) = run(schedule(mod), *arrays)
    assert "phases" in {one.rule for one in schedule.selections}
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-5)


def test_must_not_fire() -> None:
    shapes = ((1, 9, 9, 8), "float32"), ((8, 3, 3, 8), "float32")
    conv = kernel(
        lambda x, w: op.nn.conv2d(x, w, data_layout="NHWC", kernel_layout="OHWI"), *shapes
    )
    assert isinstance(Phases(RULES).match(conv), Declined)
    assert isinstance(Phases(RULES).match(kernel(op.exp, ((4, 5), "float32"))), Declined)
