"""Random chains of movement operators between operators that compute, with the pass and without."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tvm import relax, tirx
from tvm.relax import op

from tests.passes.modules import assert_same, build, random
from tvmext.passes.virtual.narrow import NarrowRows
from tvmext.passes.virtual.virtualize import VirtualTensors

N = tirx.Var("n", "int64")
LENGTH = 5
"""What n is when a network runs."""

Draw = Callable[[st.SearchStrategy], Any]


class Network:
    """One dataflow block that grows by random operators on a rank-3 tensor [a, n, c]."""

    def __init__(self, draw: Draw, builder: relax.BlockBuilder, x: relax.Var) -> None:
        self.draw, self.builder = draw, builder
        self.values = [x]

    def grow(self) -> relax.Expr:
        for _ in range(self.draw(st.integers(2, 8))):
            step = self.draw(st.sampled_from(self.STEPS))
            tensor = self.draw(st.sampled_from(self.values[-2:]))
            self.values.append(self.builder.emit(step(self, tensor)))
        return self.values[-1]

    def turn(self, t: relax.Var) -> relax.Expr:
        return op.permute_dims(t, [0, 2, 1])

    def swap(self, t: relax.Var) -> relax.Expr:
        return op.permute_dims(t, self.draw(st.permutations(range(3))))

    def heads(self, t: relax.Var) -> relax.Expr:
        """[a, b, c] -> [a*b, c] -> [1, a*b, c]: axes that merge, whatever they are."""
        a, b, c = t.ty.shape
        flat = self.builder.emit(op.reshape(t, (a * b, c)))
        return op.expand_dims(flat, [self.draw(st.integers(0, 2))])

    def back(self, t: relax.Var) -> relax.Expr:
        """Reversed twice: cancels."""
        axis = self.draw(st.integers(0, 2))
        return op.flip(self.builder.emit(op.flip(t, axis)), axis)

    def flip(self, t: relax.Var) -> relax.Expr:
        return op.flip(t, self.draw(st.integers(0, 2)))

    def both(self, t: relax.Var) -> relax.Expr:
        return op.concat([t, self.builder.emit(op.flip(t, 1))], self.draw(st.integers(0, 2)))

    def pad(self, t: relax.Var) -> relax.Expr:
        widths = [self.draw(st.integers(0, 2)) for _ in range(6)]
        return op.nn.pad(t, widths, pad_value=1.5)

    def cut(self, t: relax.Var) -> relax.Expr:
        """All but the first element of an axis, where that is known to leave some."""
        known = [k for k, dim in enumerate(t.ty.shape) if isinstance(dim, tirx.IntImm)]
        wide = [k for k in known if int(t.ty.shape[k].value) > 1]
        if not wide:
            return op.negative(t)
        axis = self.draw(st.sampled_from(wide))
        end = t.ty.shape[axis].value
        return op.strided_slice(t, [axis], [1], [end], [self.draw(st.integers(1, 2))])

    def spread(self, t: relax.Var) -> relax.Expr:
        return op.repeat(t, 2, self.draw(st.integers(0, 2)))

    def compute(self, t: relax.Var) -> relax.Expr:
        return self.draw(st.sampled_from([op.negative, op.nn.relu, op.abs]))(t)

    def combine(self, t: relax.Var) -> relax.Expr:
        return op.add(t, self.builder.emit(op.multiply(t, relax.const(0.5, "float32"))))

    def normalise(self, t: relax.Var) -> relax.Expr:
        return op.nn.softmax(t, self.draw(st.integers(0, 2)))

    STEPS = (
        turn, swap, heads, back, flip, both, pad, cut, spread, compute, combine, normalise,
    )  # fmt: skip


@pytest.mark.parametrize("n", [LENGTH, N], ids=str)
@settings(max_examples=12, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_random_networks(n: Any, data: Any) -> None:
    def body(bb: relax.BlockBuilder, x: relax.Var) -> list[relax.Expr]:
        network = Network(data.draw, bb, x)
        result = network.grow()
        return [op.exp(result), network.values[len(network.values) // 2]]

    mod = build([("x", (2, n, 3), "float32")], body)
    after = VirtualTensors()(NarrowRows()(mod))
    relax.analysis.well_formed(after)
    assert_same(mod, after, np.clip(random(2, LENGTH, 3), -2, 2))
