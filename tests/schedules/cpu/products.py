"""Matrix products and convolutions: scheduled with packed weights, run, compared with NumPy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from tests.schedules.cpu.kernels import ARCH, Build, kernel, run
from tvmext.arch import CpuArch
from tvmext.schedules.cpu import RULES
from tvmext.schedules.layout import relayout
from tvmext.schedules.rule import Kernel, Rule, Scheduled
from tvmext.schedules.select import Selection, select


def schedule(
    build: Build,
    *inputs: tuple[Sequence[Any], str],
    weights: Sequence[int] = (),
    arch: CpuArch = ARCH,
    rules: Sequence[Rule] = RULES,
) -> tuple[Kernel, Scheduled, Selection]:
    """The one kernel of an expression, its parameters `weights` known at compile time."""
    before = replace(kernel(build, *inputs), constant_args=frozenset(weights))
    return (before, *select(before, arch, rules))


def compare(
    build: Build,
    arrays: Sequence[np.ndarray],
    expected: np.ndarray,
    *,
    weights: Sequence[int] = (),
    dims: Sequence[Sequence[Any]] | None = None,
    rule: str | None = None,
    arch: CpuArch = ARCH,
    rules: Sequence[Rule] = RULES,
    tolerance: float = 1e-5,
) -> Selection:
    """Schedule, lay the weights out, run, compare; errors are relative to the largest value."""
    shapes = dims or [array.shape for array in arrays]
    inputs = [(shape, str(array.dtype)) for shape, array in zip(shapes, arrays)]
    _, result, selection = schedule(build, *inputs, weights=weights, arch=arch, rules=rules)
    if rule is not None:
        assert selection.rule == rule, selection
    values = {
        f"x{i}": relayout(array, result.layouts[i]) if i in result.layouts else array
        for i, array in enumerate(arrays)
    }
    (output,) = run(result.func, values, arch)
    scale = max(1.0, float(np.abs(expected).max(initial=0)))
    np.testing.assert_allclose(output, expected, rtol=tolerance, atol=tolerance * scale)
    return selection


def convolve(
    x: np.ndarray,
    w: np.ndarray,
    stride: int = 1,
    pad: int = 0,
    dilation: int = 1,
    groups: int = 1,
) -> np.ndarray:
    """``x[n, h, w, c]`` convolved with ``w[o, kh, kw, c / groups]`` in float64."""
    kernel_size = w.shape[1]
    reach = dilation * (kernel_size - 1) + 1
    padded = np.pad(x.astype("float64"), ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (reach, reach), (1, 2))
    windows = windows[:, ::stride, ::stride, :, ::dilation, ::dilation]
    parts = [
        np.einsum("nhwcyx,oyxc->nhwo", xs, ws)
        for xs, ws in zip(np.split(windows, groups, 3), np.split(w.astype("float64"), groups, 0))
    ]
    return np.concatenate(parts, 3)
