"""Transposed convolutions in phases against their definition: every input element is scattered."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from tvm import relax, tirx
from tvm.relax import op

from tests.passes import modules
from tests.passes.modules import build, random
from tvmext.passes.legalize import LEGALIZE
from tvmext.passes.transposed_convolution import AS_PRODUCTS, phases
from tvmext.schedules.kernel.view import view
from tvmext.schedules.rule import Declined

few = settings(max_examples=25, deadline=None)
CALLS = {1: op.nn.conv1d_transpose, 2: op.nn.conv2d_transpose, 3: op.nn.conv3d_transpose}


def scattered(x, w, stride, padding, extra, dilation, groups):
    """``out[i s + k d - p] += x[i] w[k]`` for x[n, c, i..] and w[c, o, k..]."""
    rank = x.ndim - 2
    full = [
        (n - 1) * s + d * (k - 1) + 1 + e
        for n, k, s, d, e in zip(x.shape[2:], w.shape[2:], stride, dilation, extra)
    ]
    out = np.zeros((x.shape[0], w.shape[1] * groups, *full))
    for g, (xs, ws) in enumerate(zip(np.split(x, groups, 1), np.split(w, groups, 0))):
        channels = slice(g * w.shape[1], (g + 1) * w.shape[1])
        for k in product(*map(range, w.shape[2:])):
            at = tuple(
                slice(i * d, i * d + (n - 1) * s + 1, s)
                for i, d, n, s in zip(k, dilation, x.shape[2:], stride)
            )
            out[(slice(None), channels, *at)] += np.einsum("nc...,co->no...", xs, ws[(..., *k)])
    crop = [slice(padding[a], out.shape[2 + a] - padding[rank + a]) for a in range(rank)]
    return out[(slice(None), slice(None), *crop)]


def lowered(x, w, weight_is_constant, symbolic, lowerings=LEGALIZE, **attrs):
    call = CALLS[x.ndim - 2]
    shape = [
        tirx.Var(f"d{i}", "int64") if symbolic and i != 1 else n for i, n in enumerate(x.shape)
    ]
    inputs = [("x", shape, "float32")]
    if weight_is_constant:
        mod = build(inputs, lambda _, x: call(x, relax.const(w), **attrs))
        arrays = [x]
    else:
        mod = build([*inputs, ("w", w.shape, "float32")], lambda _, x, w: call(x, w, **attrs))
        arrays = [x, w]
    return relax.transform.LegalizeOps(lowerings)(mod), arrays


@few
@given(st.data())
def test_equals_its_definition(data: st.DataObject) -> None:
    draw = lambda *values: data.draw(st.sampled_from(values))  # noqa: E731
    rank = draw(1, 2, 2, 3)
    each = lambda *values: tuple(draw(*values) for _ in range(rank))  # noqa: E731
    sizes, kernel = each(1, 2, 5), each(1, 2, 3, 4)
    stride, dilation = each(1, 2, 3), each(1, 1, 2, 3)
    extra = tuple(draw(*range(s)) for s in stride)
    padding = (*each(0, 1, 2), *each(0, 1))
    groups = draw(1, 2)
    x, w = random(2, 4, *sizes), random(4, 3, *kernel, seed=1)
    assume(
        all(
            (n - 1) * s + d * (k - 1) + 1 + e > padding[a] + padding[rank + a]
            for a, (n, k, s, d, e) in enumerate(zip(sizes, kernel, stride, dilation, extra))
        )
    )
    expected = scattered(x, w, stride, padding, extra, dilation, groups)
    mod, arrays = lowered(
        x,
        w,
        draw(True, False),
        draw(True, False),
        strides=stride,
        padding=padding,
        output_padding=extra,
        dilation=dilation,
        groups=groups,
    )
    (result,) = modules.run(mod, *arrays)
    np.testing.assert_allclose(result, expected, rtol=1e-5, atol=1e-5)


def test_no_tap_is_multiplied_twice_or_left_out() -> None:
    for kernel, stride, dilation in product((1, 2, 3, 4, 5), (1, 2, 3), (1, 2, 3)):
        taps = [tap for phase in phases(kernel, stride, dilation, 1, 0, 0) for tap in phase.taps]
        assert sorted(taps) == list(range(kernel))


@few
@given(st.data())
def test_one_product_equals_its_definition(data: st.DataObject) -> None:
    draw = lambda *values: data.draw(st.sampled_from(values))  # noqa: E731
    rank = draw(1, 2, 2, 3)
    each = lambda *values: tuple(draw(*values) for _ in range(rank))  # noqa: E731
    sizes, stride = each(1, 2, 5), each(1, 2, 3)
    assume(max(stride) > 1)
    x, w = random(2, 4, *sizes), random(4, 3, *stride, seed=1)
    none, ones = (0,) * (2 * rank), (1,) * rank
    expected = scattered(x, w, stride, none, none[:rank], ones, 1)
    how = LEGALIZE | AS_PRODUCTS
    mod, arrays = lowered(x, w, draw(True, False), draw(True, False), how, strides=stride)
    (function,) = (func for func in mod.functions.values() if isinstance(func, tirx.PrimFunc))
    seen = view(function)
    assert not isinstance(seen, Declined) and len(seen.reductions) == 1
    (result,) = modules.run(mod, *arrays)
    np.testing.assert_allclose(result, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("layout", ["NHWC", "NCHW"])
def test_layouts(layout: str) -> None:
    x, w = random(1, 4, 5, 6), random(4, 3, 3, 3, seed=1)
    expected = scattered(x, w, (2, 2), (1, 1, 1, 1), (0, 0), (1, 1), 1)
    order = [("NCHW").index(c) for c in layout]
    x = x.transpose(order)
    mod = build(
        [("x", x.shape, "float32")],
        lambda _, x: op.nn.conv2d_transpose(
            x, relax.const(w), strides=2, padding=1, data_layout=layout, kernel_layout="IOHW"
        ),
    )
    (result,) = modules.run(relax.transform.LegalizeOps(LEGALIZE)(mod), x)
    np.testing.assert_allclose(result, expected.transpose(order), rtol=1e-5, atol=1e-5)
