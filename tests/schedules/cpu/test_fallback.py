"""What no rule understands keeps its loops and its results; without results there is no loop."""

from __future__ import annotations

import numpy as np
from tvm import relax, tirx

from tests.schedules.cpu.kernels import fused, kernel, normal, run, scheduled
from tvmext.schedules.kernel.analysis import collect
from tvmext.schedules.rule import Kernel

op = relax.op


def test_scatter_keeps_its_loops() -> None:
    before = kernel(
        lambda x, i, u: op.scatter_nd(x, i, u),
        ((6, 8), "float32"),
        ((2, 1), "int64"),
        ((2, 8), "float32"),
    )
    function, selection = scheduled(before)
    assert selection.rule == "fallback"
    assert all(reason for _, reason in selection.declined)
    x, updates = normal(6, 8), normal(2, 8, seed=1)
    index = np.array([[4], [1]])
    (result,) = run(function, {"x0": x, "x1": index, "x2": updates})
    x[index[:, 0]] = updates
    np.testing.assert_array_equal(result, x)


def test_every_kernel_of_stateful_operators_is_taken() -> None:
    builds = [
        lambda x: op.cumsum(x, 1),
        lambda x: op.sort(x, 1),
        lambda x: op.topk(x, 3, 1, "values"),
    ]
    for build in builds:
        for function in fused(build, ((4, 9), "float32")):
            _, selection = scheduled(Kernel("kernel", function))
            assert selection.rule


def test_without_an_element_there_is_nothing_to_do() -> None:
    shape = (2, 3, 4, 0)
    pooled = kernel(lambda x: op.nn.avg_pool2d(x, (3, 1), padding=(1, 0)), (shape, "float32"))
    function, selection = scheduled(pooled)
    assert selection.rule == "nothing"
    assert not collect(function.body, tirx.For)
    (result,) = run(function, {"x0": np.zeros(shape, np.float32)})
    assert result.shape == shape


def test_what_has_results_or_may_have_some_is_done() -> None:
    n = tirx.Var("n", "int64")
    for shape in ((2, 0), (n, 2)):
        _, selection = scheduled(kernel(lambda x: op.sum(x, 1), (shape, "float32")))
        assert selection.rule != "nothing"
