"""Other shapes of the same memory: equal elements, no divisions where networks have them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

from tests.passes.virtual.programs import Program, programs
from tests.passes.virtual.test_operations import SIZES, SYMBOLIC
from tvmext.frontends.dims import evaluate, symbol
from tvmext.passes.virtual import operations as ops
from tvmext.passes.virtual.evaluate import materialize
from tvmext.passes.virtual.piece import Home
from tvmext.passes.virtual.regroup import regrouped
from tvmext.passes.virtual.tensor import VirtualTensor, physical

N = symbol("n")


def chain_of_window() -> VirtualTensor:
    x = physical("x", [N, 56, 56, 96])
    rolled = ops.roll(ops.roll(x, -3, 1), -3, 2)
    tiles = ops.permute(ops.reshape(rolled, [N, 8, 7, 8, 7, 96]), [0, 1, 3, 2, 4, 5])
    return ops.reshape(tiles, [N * 64, 49, 96])


def merged_heads() -> VirtualTensor:
    return ops.reshape(ops.permute(physical("x", [12, N, 64]), [1, 0, 2]), [N, 768])


def shuffled() -> VirtualTensor:
    groups = ops.reshape(physical("x", [N, 116, 28, 28]), [N, 2, 58, 28, 28])
    return ops.reshape(ops.permute(groups, [0, 2, 1, 3, 4]), [N, 116, 28, 28])


def channels_last_flat() -> VirtualTensor:
    flat = ops.permute(physical("x", [N, 64, 64, 128]), [0, 3, 1, 2])
    return ops.reshape(flat, [N, 16, 8, 4096])


@pytest.mark.parametrize("make", [chain_of_window, merged_heads, shuffled, channels_last_flat])
def test_chains_of_networks_have_no_division(make) -> None:
    assert "floordiv" not in str(regrouped(make(), shape_too=True).pieces)


def test_a_transpose_of_an_image_has_three_axes() -> None:
    nhwc = ops.permute(physical("x", [N, 128, 64, 64]), [0, 2, 3, 1])
    assert regrouped(nhwc, shape_too=True).shape == (N, 4096, 128)


def test_what_must_keep_its_shape_does() -> None:
    tensor = channels_last_flat()
    assert regrouped(tensor, shape_too=False).shape == tensor.shape
    assert regrouped(tensor, shape_too=True, fixed={"x"}).homes == tensor.homes


@settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))
@given(programs(SYMBOLIC, SIZES, 4))
def test_elements_are_the_same(program: Program) -> None:
    for shape_too in (False, True):
        other = regrouped(program.tensor, shape_too)
        for binding, arrays, expected in zip(program.bindings, program.arrays, program.values):
            viewed = dict(arrays)
            for home in other.homes:
                shape = tuple(evaluate(size, binding) for size in home.shape)
                viewed[home.name] = arrays[home.name].reshape(shape)
            actual = materialize(other, viewed, binding)
            np.testing.assert_array_equal(actual.reshape(expected.shape), expected)
            assert all(isinstance(home, Home) for home in other.homes)
