"""Recurrent networks as the rule writes them, against the plain kernel."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import tvm
from tvm import relax, tirx

from tests.schedules.cpu.kernels import ARCH, kernel
from tvmext.arch import from_target, to_target
from tvmext.frontends.recurrence import DEFAULTS, GATES, Activation, Form
from tvmext.frontends.recurrence import kernel as plain
from tvmext.schedules.cpu.recurrence import Recurrence
from tvmext.schedules.cpu.recurrence_steps import LEAST_STEPS
from tvmext.schedules.kernel.analysis import collect
from tvmext.schedules.layout import relayout
from tvmext.schedules.rule import Declined, Kernel

FUNCTIONS = {"RNN": ("tanh",), "GRU": ("sigmoid", "tanh"), "LSTM": ("sigmoid", "tanh", "tanh")}


def form(kind, directions=1, **options):
    row = tuple(Activation(name, *DEFAULTS.get(name, (0.0, 0.0))) for name in FUNCTIONS[kind])
    return Form(kind, (row,) * directions, (False, True)[:directions], **options)


def call(func, arrays, outputs):
    built = tvm.compile(
        tvm.IRModule({"main": func.with_attr("global_symbol", "main")}),
        tvm.target.Target(to_target(ARCH)),
    )
    results = [tvm.runtime.tensor(np.zeros(s, d)) for s, d in outputs]
    built["main"](*map(tvm.runtime.tensor, arrays), *results)
    return [result.numpy() for result in results]


def check(one, hidden, steps, batch, *, free=False, dtype="float32", arch=ARCH, constant=True):
    """The rule's kernel, its weights packed before or by it, computes what the plain one does."""
    rng = np.random.default_rng(0)
    directions, gates = len(one.backward), GATES[one.kind]
    state = (directions, batch, hidden)
    shapes = {"x": (steps, batch, directions, gates, hidden), "inner": (directions, hidden)}
    shapes |= {"r": (directions, gates, hidden, hidden), "peepholes": (directions, 3, hidden)}
    arrays = [
        rng.integers(-1, steps + 2, batch)
        if name == "lengths"
        else (rng.standard_normal(shapes.get(name, state)) / hidden**0.5).astype(dtype)
        for name in one.operands
    ]
    outputs = [((steps, *state) if name == "y" else state, dtype) for name in one.results]
    before = plain(one, None if free else steps, None if free else batch, hidden, dtype)
    place = one.operands.index("r")
    unscheduled = Kernel("cell", before, frozenset([place] if constant else []))
    rule = Recurrence()
    workload = rule.match(unscheduled)
    assert not isinstance(workload, Declined)
    done = rule.apply(unscheduled, workload, rule.choose(workload, arch), arch)
    expected = call(before, arrays, outputs)
    for number, layout in done.layouts.items():
        arrays[number] = relayout(arrays[number], layout)
    for got, want in zip(call(done.func, arrays, outputs), expected, strict=True):
        np.testing.assert_allclose(got, want, rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize("kind", GATES)
@pytest.mark.parametrize("hidden", [1, 37])
def test_known_sizes(kind, hidden):
    check(form(kind), hidden, 4, 1)


@pytest.mark.parametrize("hidden", [20, LEAST_STEPS + 1])
@pytest.mark.parametrize("steps, batch", [(0, 2), (3, 0), (3, 1), (3, 8), (3, 11)])
def test_free_sizes(hidden, steps, batch):
    check(form("LSTM", 2, extras=("peepholes", "lengths")), hidden, steps, batch, free=True)


@pytest.mark.parametrize("free", [False, True])
def test_directions_with_functions_of_their_own(free):
    one = form("GRU", 2)
    other = (Activation("hardsigmoid", *DEFAULTS["hardsigmoid"]), *one.functions[0][1:])
    check(replace(one, functions=(one.functions[0], other)), 20, 3, 6, free=free)


@pytest.mark.parametrize("kind", GATES)
def test_code_is_shared(kind):
    """By directions of the same functions, by groups and single sequences if states are long."""
    one = form(kind, 2)
    other = (Activation("relu", 0.0, 0.0), *one.functions[0][1:])
    apart = replace(one, functions=(one.functions[0], other))
    for wanted, unscheduled in (
        (1, plain(one, 3, 4, LEAST_STEPS, "float32")),
        (1, plain(one, None, None, LEAST_STEPS, "float32")),
        (2, plain(one, None, None, LEAST_STEPS - 1, "float32")),
        (2, plain(apart, None, None, LEAST_STEPS, "float32")),
    ):
        rule, unscheduled = Recurrence(), Kernel("cell", unscheduled, frozenset())
        workload = rule.match(unscheduled)
        func = rule.apply(unscheduled, workload, rule.choose(workload, ARCH), ARCH).func
        states = [a for a in collect(func.body, tirx.AllocBuffer) if a.buffer.name == "next"]
        assert len(states) == wanted


def test_cores_share_the_sequences():
    check(form("GRU", 2, extras=("lengths",)), 24, 3, 11, arch=replace(ARCH, cores=2))


def test_a_bias_that_is_reset_and_weights_that_are_inputs():
    one = form("GRU", linear_before_reset=True, extras=("inner",))
    check(one, 21, 3, 5, constant=False)


@pytest.mark.parametrize("kind", GATES)
def test_states_that_begin_with_zeros(kind):
    one = form(kind, 2, from_zero=True)
    assert not {"h0", "c0"} & set(one.operands)
    check(one, 20, 3, 5, free=True)


def test_doubles():
    check(form("LSTM"), 9, 3, 2, dtype="float64")


@pytest.mark.parametrize("mcpu", ["x86-64", "x86-64-v3", "x86-64-v4"])
def test_sums_fit_the_registers(mcpu):
    arch = from_target({"kind": "llvm", "mcpu": mcpu})
    for kind in GATES:
        one = form(kind)
        workload = Recurrence().match(Kernel("cell", plain(one, None, None, 64, "float32")))
        decision = Recurrence().choose(workload, arch)
        gates = max(len(phase.gates) for phase in one.phases)
        sums = gates * decision.vectors * decision.sequences
        assert sums <= arch.vector_registers


def test_vectors_of_another_machine():
    check(form("LSTM"), 19, 3, 5, arch=from_target({"kind": "llvm", "mcpu": "x86-64-v3"}))


def test_other_kernels_are_not_taken():
    product = kernel(relax.op.matmul, ([4, 8], "float32"), ([8, 6], "float32"))
    assert isinstance(Recurrence().match(product), Declined)
