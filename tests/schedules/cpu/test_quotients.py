"""Axes whose elements are repeated."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from tvm import te

from tests.schedules.cpu.kernels import check, composed, normal
from tvmext.schedules.cpu.staged import Stages, as_stages


def repeat(times: int) -> Any:
    def build(x: te.Tensor) -> te.Tensor:
        shape = [x.shape[0], x.shape[1] * times]
        return te.compute(shape, lambda i, j: x[i, j // times] * 2, name="repeat")

    return build


@pytest.mark.parametrize("times", [2, 3])
@pytest.mark.parametrize("dims", [(3, 37), ("n", "m")])
def test_repeats(times: int, dims: tuple) -> None:
    found = as_stages(composed(repeat(times), (dims, "float32")))
    assert isinstance(found, Stages)
    assert found.stages[0].spatial[-1].size == times
    x = normal(3, 37)
    expected = np.repeat(x, times, 1) * 2
    check(repeat(times), [x], expected, dims=[dims], how=composed, rule="elementwise")


def test_must_not_fire() -> None:
    def both(x: te.Tensor) -> te.Tensor:
        return te.compute([8], lambda i: x[i // 2] + x[i], name="both")

    for build, size in ((both, 8), (repeat(9), 4)):
        shape = (size,) if build is both else (3, size)
        found = as_stages(composed(build, (shape, "float32")))
        assert isinstance(found, Stages)
        assert found.stages[0].spatial[-1].size in (8, 36)
