"""Winograd's method against NumPy, and where it is used."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import tvm
from hypothesis import given, settings
from hypothesis import strategies as st
from tvm import relax

from tests.schedules.cpu.kernels import ARCH, normal
from tests.schedules.cpu.products import compare, convolve, schedule
from tests.schedules.cpu.test_conv import nhwc
from tvmext.arch import FAMILIES, CpuArch, to_target
from tvmext.build.kernels import build_kernels
from tvmext.schedules.cpu import rules, winograd_choice
from tvmext.schedules.cpu.conv import Conv, Workload
from tvmext.schedules.cpu.functions import called_by
from tvmext.schedules.cpu.winograd import FILTERS
from tvmext.schedules.layout import relayout

op = relax.op
ALWAYS = replace(ARCH, fma_units=1)
WIDE = FAMILIES["znver4"]


def uses(selection: object) -> int:
    """The outputs of a tile along each dim; 0 for a sum over the window."""
    return getattr(selection.decision, "step", 0)


@pytest.mark.parametrize("step", FILTERS)
def test_the_equation_in_one_dim(step: int) -> None:
    used = FILTERS[step]
    inputs, weight, outputs = map(np.array, (used.inputs, used.weight, used.outputs))
    d, g = normal(used.size).astype("float64"), normal(3, seed=1).astype("float64")
    expected = np.correlate(d, g)
    np.testing.assert_allclose(outputs @ ((weight @ g) * (inputs @ d)), expected, atol=1e-12)


def test_fires() -> None:
    shapes = ((1, 14, 14, 64), "float32"), ((64, 3, 3, 64), "float32")
    _, result, selection = schedule(nhwc(padding=1), *shapes, weights=[1])
    assert uses(selection) == 2
    layout = result.layouts[1]
    assert layout.shape[1:3] == (4, 4)
    assert [dim for dim, _ in layout.products] == [1, 2]


@pytest.mark.parametrize(
    "options, weight, change",
    [
        ({"strides": 2}, (64, 3, 3, 64), {}),
        ({"strides": (2, 1)}, (64, 3, 3, 64), {}),
        ({}, (64, 5, 5, 64), {}),
        ({}, (64, 1, 1, 64), {}),
        ({}, (64, 3, 3, 64), {"weights": []}),
        ({}, (64, 3, 3, 64), {"rules": rules(())}),
    ],
)
def test_must_not_fire(options: dict[str, int], weight: tuple[int, ...], change: dict) -> None:
    shapes = ((1, 14, 14, 64), "float32"), (weight, "float32")
    _, _, selection = schedule(nhwc(padding=1, **options), *shapes, **{"weights": [1], **change})
    assert uses(selection) == 0


def test_few_channels_cost_less_directly() -> None:
    shapes = ((1, 56, 56, 3), "float32"), ((16, 3, 3, 3), "float32")
    _, _, selection = schedule(nhwc(padding=1), *shapes, weights=[1])
    assert uses(selection) == 0


@settings(max_examples=12, deadline=None)
@given(
    st.sampled_from([1, 3]),
    st.sampled_from([3, 4, 7, 13]),
    st.sampled_from([3, 6, 11]),
    st.sampled_from([16, 24, 48]),
    st.sampled_from([16, 33, 64]),
    st.sampled_from([(0, 0, 0, 0), (1, 1, 1, 1), (2, 0, 1, 3), (0, 1, 0, 1)]),
    st.sampled_from([2, 4]),
    st.booleans(),
)
def test_sizes(
    n: int, h: int, w: int, ci: int, co: int, pads: tuple[int, ...], step: int, symbolic: bool
) -> None:
    x, weight = normal(n, h, w, ci), normal(co, 3, 3, ci, seed=1)
    top, left, bottom, right = pads
    padded = np.pad(x, ((0, 0), (top, bottom), (left, right), (0, 0)))
    dims = [("n", "h", "w", ci), weight.shape] if symbolic and min(h, w) > 3 else None
    compare(
        nhwc(padding=pads),
        [x, weight],
        convolve(padded, weight),
        weights=[1],
        dims=dims,
        rules=rules([step]),
        tolerance=1e-5 if step == 2 else 1e-4,
    )


@pytest.mark.parametrize("n, h, w", [(0, 5, 7), (1, 1, 1), (2, 0, 3), (2, 7, 5), (1, 23, 34)])
@pytest.mark.parametrize("family", ["x86-64-v4", "x86-64-v3", "x86-64"])
def test_symbolic_sizes(n: int, h: int, w: int, family: str) -> None:
    x, weight = normal(n, h, w, 32), normal(32, 3, 3, 32, seed=1)
    arch = ARCH if family == "x86-64-v4" else FAMILIES[family]
    expected = convolve(x, weight, 1, 1) if x.size else np.zeros(x.shape)
    selection = compare(
        nhwc(padding=1),
        [x, weight],
        expected,
        weights=[1],
        dims=[("n", "h", "w", 32), weight.shape],
        arch=arch,
    )
    assert uses(selection) == 2


def test_kernels_share_their_products() -> None:
    """If the number of tiles is not known, kernels of one tile call one function."""

    def called(ci: int, co: int, *size: str | int) -> set[str]:
        shapes = (("n", *size, ci), "float32"), ((co, 3, 3, ci), "float32")
        _, result, selection = schedule(nhwc(padding=1), *shapes, weights=[1], arch=WIDE)
        assert uses(selection) == 2
        return {function.name_hint for function in called_by([result.func])}

    free = called(32, 32, "h", "w")
    assert len(free) == 1
    assert called(64, 96, "h", "w") == free
    assert called(24, 96, "h", "w").isdisjoint(free)  # channels in vectors of 8
    assert not called(512, 512, "h", "w")  # panels are fetched ahead
    shapes = ((1, 14, 14, 32), "float32"), ((32, 3, 3, 32), "float32")
    _, known, _ = schedule(nhwc(padding=1), *shapes, weights=[1], arch=WIDE)
    assert not called_by([known.func])


def test_two_kernels_of_one_library() -> None:
    """One function serves kernels of other channels and sizes."""
    kernels, wanted = {}, {}
    for name, ci, co in (("first", 16, 32), ("second", 48, 64)):
        x, weight = normal(2, 9, 11, ci), normal(co, 3, 3, ci, seed=1)
        shapes = (("n", "h", "w", ci), "float32"), (weight.shape, "float32")
        _, result, _ = schedule(nhwc(padding=1), *shapes, weights=[1])
        kernels[name] = result.func
        wanted[name] = (x, relayout(weight, result.layouts[1]), convolve(x, weight, 1, 1))
    built = build_kernels(kernels, tvm.target.Target(to_target(ARCH)))
    for name, (x, weight, expected) in wanted.items():
        got = tvm.runtime.tensor(np.zeros(expected.shape, "float32"))
        built[name](tvm.runtime.tensor(x), tvm.runtime.tensor(weight), got)
        np.testing.assert_allclose(got.numpy(), expected, rtol=1e-5, atol=1e-5 * 50)


@pytest.mark.parametrize("size", [(5, 9), (16, 16), (7, 6)])
@pytest.mark.parametrize("dilation, groups", [(2, 1), (3, 2), (1, 4)])
def test_dilation_and_groups(size: tuple[int, int], dilation: int, groups: int) -> None:
    x, w = normal(2, *size, 64), normal(48, 3, 3, 64 // groups, seed=1)
    for dims in (None, [("n", "h", "w", 64), w.shape]):
        selection = compare(
            nhwc(padding=dilation, dilation=dilation, groups=groups),
            [x, w],
            convolve(x, w, 1, dilation, dilation, groups),
            weights=[1],
            dims=dims,
        )
        assert uses(selection) == 2 or size != (16, 16)


@pytest.mark.parametrize("channels", [32, 40])
def test_epilogues(channels: int) -> None:
    x, w = normal(1, 9, 9, 32), normal(channels, 3, 3, 32, seed=1)
    bias, skip = normal(1, 1, 1, channels), normal(1, 9, 9, channels, seed=2)
    total = convolve(x, w, 1, 1) + bias
    conv = nhwc(padding=1)
    selection = compare(
        lambda x, w, b, r: op.nn.relu(op.add(op.add(conv(x, w), b), r)),
        [x, w, bias, skip],
        np.maximum(total + skip, 0),
        weights=[1],
    )
    assert uses(selection) == 2
    compare(
        lambda x, w, b: op.nn.silu(op.add(conv(x, w), b)),
        [x, w, bias],
        total / (1 + np.exp(-total)),
        weights=[1],
    )


@pytest.mark.parametrize("step, bound", [(2, 3e-6), (4, 5e-5)])
def test_error_bounds(step: int, bound: float) -> None:
    """Relative to the root mean square of the output, as docs/cli.md says."""
    x, w = normal(1, 28, 28, 128), normal(32, 3, 3, 128, seed=1)
    expected = convolve(x, w, 1, 1)
    scale = float(np.sqrt(np.mean(expected**2)))
    largest = max(1.0, float(np.abs(expected).max()))
    compare(
        nhwc(padding=1),
        [x, w],
        expected,
        weights=[1],
        rules=rules([step]),
        tolerance=bound * scale / largest,
    )


def test_blocks_and_panels_on_two_cores() -> None:
    arch = replace(ARCH, cores=2)
    for size, channels, level in ((56, 64, "blocks"), (7, 256, "panels")):
        x, w = normal(1, size, size, channels), normal(channels, 3, 3, channels, seed=1)
        expected = convolve(x, w, 1, 1)
        selection = compare(nhwc(padding=1), [x, w], expected, weights=[1], arch=arch)
        assert (uses(selection), selection.decision.parallel) == (2, level)


@pytest.mark.parametrize("step", FILTERS)
@pytest.mark.parametrize("dims", [None, [("n", "h", "w", 9), (256, 3, 3, 9)]])
def test_an_odd_number_of_channels(step: int, dims: list | None) -> None:
    """Channels go in vectors of what divides their number: one here."""
    x, w = normal(1, 28, 28, 9), normal(256, 3, 3, 9, seed=1)
    selection = compare(
        nhwc(padding=1),
        [x, w],
        convolve(x, w, 1, 1),
        weights=[1],
        dims=dims,
        rules=[Winograd([step])],
        tolerance=1e-4,
    )
    assert uses(selection) == step


class Winograd(Conv):
    """Convolutions by Winograd's method whatever they cost."""

    def choose(self, workload: Workload, arch: CpuArch) -> winograd_choice.Decision:
        assert workload.windows is not None
        plan = winograd_choice.best_plan(workload.windows, self.filters, arch)
        assert plan is not None
        return winograd_choice.decide(workload.windows, plan, arch)
