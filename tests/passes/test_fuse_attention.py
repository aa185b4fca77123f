"""FuseAttention: the forms that exporters write become one kernel, everything else stays."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import tvm
from tvm import relax, tirx
from tvm.relax import op

from tests.passes.modules import build, operators, random, run
from tvmext.passes.constants import constant
from tvmext.passes.fuse_attention import FuseAttention
from tvmext.passes.widen_halves import WidenHalves

Body = Callable[..., Any]


def scalar(value: float, dtype: str = "float32") -> relax.Expr:
    return constant(np.array(value, dtype))


def heads(bb: relax.BlockBuilder, x: relax.Expr, count: int) -> relax.Expr:
    """[b, s, h * d] -> [b, h, s, d]"""
    b, s, width = x.ty.shape
    split = bb.emit(op.reshape(x, (b, s, count, width // count)))
    return bb.emit(op.permute_dims(split, [0, 2, 1, 3]))


def merged(bb: relax.BlockBuilder, x: relax.Expr) -> relax.Expr:
    """[b, h, s, d] -> [b, s, h * d]"""
    b, h, s, d = x.ty.shape
    return bb.emit(op.reshape(bb.emit(op.permute_dims(x, [0, 2, 1, 3])), (b, s, h * d)))


def legacy(bb: relax.BlockBuilder, q: Any, k: Any, v: Any, mask: Any = None) -> relax.Expr:
    """As torch's older exporter writes it: the keys transposed at once, scores scaled."""
    q, v = heads(bb, q, 3), heads(bb, v, 3)
    b, s, width = k.ty.shape
    split = bb.emit(op.reshape(k, (b, s, 3, width // 3)))
    scores = bb.emit(op.matmul(q, bb.emit(op.permute_dims(split, [0, 2, 3, 1]))))
    scores = bb.emit(op.divide(scores, scalar(2.0, str(scores.ty.dtype))))
    if mask is not None:
        scores = bb.emit(op.add(scores, mask))
    return merged(bb, bb.emit(op.matmul(bb.emit(op.nn.softmax(scores, -1)), v)))


def dynamo(bb: relax.BlockBuilder, q: Any, k: Any, v: Any, mask: Any = None) -> relax.Expr:
    """As its newer one does: both factors scaled, keys transposed flat, a guard against NaN."""
    q, k, v = (heads(bb, x, 3) for x in (q, k, v))
    b, h, s, d = k.ty.shape
    flat = bb.emit(op.reshape(k, (b * h, s, d)))
    turned = bb.emit(op.reshape(bb.emit(op.permute_dims(flat, [0, 2, 1])), (b, h, d, s)))
    root = scalar(0.5**0.5)
    q, turned = bb.emit(op.multiply(q, root)), bb.emit(op.multiply(turned, root))
    scores = bb.emit(op.matmul(q, turned))
    if mask is not None:
        scores = bb.emit(op.add(scores, mask))
    weights = bb.emit(op.nn.softmax(scores, -1))
    weights = bb.emit(op.where(bb.emit(op.isnan(weights)), scalar(0.0), weights))
    return merged(bb, bb.emit(op.matmul(weights, v)))


def selected(bb: relax.BlockBuilder, q: Any, k: Any, v: Any, mask: Any) -> relax.Expr:
    """Three axes, a mask of truth values, scores limited by tanh; nothing is transposed behind."""
    scores = bb.emit(op.matmul(q, bb.emit(op.permute_dims(k, [0, 2, 1]))))
    scores = bb.emit(op.multiply(scalar(3.0), bb.emit(op.tanh(scores))))
    scores = bb.emit(op.where(mask, scores, scalar(-1e9)))
    return bb.emit(op.matmul(bb.emit(op.nn.softmax(scores, 2)), v))


def grouped(bb: relax.BlockBuilder, q: Any, k: Any, v: Any, mask: Any = None) -> relax.Expr:
    """Two heads of keys for six of queries, [b, h, s, d]."""

    def copied(x: relax.Expr) -> relax.Expr:
        b, h, s, d = x.ty.shape
        wide = bb.emit(op.broadcast_to(bb.emit(op.expand_dims(x, 2)), (b, h, 3, s, d)))
        return bb.emit(op.reshape(wide, (b, h * 3, s, d)))

    turned = bb.emit(op.permute_dims(copied(k), [0, 1, 3, 2]))
    scores = bb.emit(op.matmul(q, turned))
    if mask is not None:
        scores = bb.emit(op.add(scores, mask))
    return merged(bb, bb.emit(op.matmul(bb.emit(op.nn.softmax(scores, -1)), copied(v))))


def inputs(*shapes: Sequence[Any], mask: str = "float32") -> list[tuple[str, Sequence[Any], str]]:
    names = "qkvm"
    return [(names[i], s, mask if i == 3 else "float32") for i, s in enumerate(shapes)]


def fuse(mod: tvm.IRModule) -> tvm.IRModule:
    return FuseAttention(lambda _: True)(mod)


def left(mod: tvm.IRModule) -> set[str]:
    return set(operators(mod)) - {"relax.reshape"}


SPLIT = [(2, 5, 12), (2, 7, 12), (2, 7, 12)]
GROUPS = [(2, 6, 5, 4), (2, 2, 7, 4), (2, 2, 7, 4)]


@pytest.mark.parametrize(
    ("body", "shapes", "mask"),
    [
        (legacy, SPLIT, None),
        (legacy, SPLIT, (2, 1, 1, 7)),
        (legacy, SPLIT, (5, 7)),
        (dynamo, SPLIT, None),
        (dynamo, SPLIT, (2, 1, 5, 7)),
        (dynamo, SPLIT, (1, 3, 5, 7)),
        (grouped, GROUPS, None),
        (grouped, GROUPS, (1, 6, 5, 7)),
        (grouped, GROUPS, (2, 1, 1, 7)),
    ],
)
def test_fires(body: Body, shapes: list, mask: tuple[int, ...] | None) -> None:
    shapes = [*shapes, mask] if mask else shapes
    mod = build(inputs(*shapes), body)
    fused = fuse(mod)
    assert left(fused) == {"relax.call_tir"}
    assert len(fused.functions) == 2
    values = [random(*shape, seed=i) for i, shape in enumerate(shapes)]
    assert_close(mod, fused, *values)


def test_where_and_tanh() -> None:
    shapes = [(2, 5, 4), (2, 7, 4), (2, 7, 3), (5, 7)]
    mod = build(inputs(*shapes, mask="bool"), selected)
    fused = fuse(mod)
    assert left(fused) == {"relax.call_tir"}
    *values, mask = (random(*shape, seed=i) for i, shape in enumerate(shapes))
    assert_close(mod, fused, *values, mask > 0)


@pytest.mark.parametrize("body", [legacy, dynamo])
def test_symbolic(body: Body) -> None:
    b, s, t = (tirx.Var(name, "int64") for name in "bst")
    mod = build(inputs((b, s, 12), (b, t, 12), (b, t, 12), (b, 1, s, t)), body)
    fused = fuse(mod)
    assert left(fused) == {"relax.call_tir"}
    shapes = [(2, 3, 12), (2, 5, 12), (2, 5, 12), (2, 1, 3, 5)]
    assert_close(mod, fused, *(random(*shape, seed=i) for i, shape in enumerate(shapes)))


@pytest.mark.parametrize(("body", "zero"), [(legacy, False), (dynamo, True)])
def test_rows_of_which_everything_is_masked(body: Body, zero: bool) -> None:
    """NaN, or zeros where the graph replaces NaN."""
    mask = np.zeros((2, 1, 5, 7), "float32")
    mask[1, 0, 2] = -np.inf
    mod = fuse(build(inputs(*SPLIT, mask.shape), body))
    (result,) = run(mod, *(random(*shape) for shape in SPLIT), mask)
    assert np.all(result[1, 2] == 0) if zero else np.all(np.isnan(result[1, 2]))
    assert np.isfinite(np.delete(result.reshape(10, 12), 7, 0)).all()


@pytest.mark.parametrize("body", [legacy, grouped])
def test_halves(body: Body) -> None:
    """Products add up in float32, all else is rounded on its way; the kernel leaves that out."""
    shapes = GROUPS if body is grouped else SPLIT
    mod = build([(name, shape, "float16") for name, shape in zip("qkv", shapes)], body)
    mod = WidenHalves()(mod)
    fused = fuse(mod)
    assert left(fused) == {"relax.call_tir"}
    values = [random(*shape, seed=i).astype("float16") for i, shape in enumerate(shapes)]
    for expected, actual in zip(run(mod, *values), run(fused, *values), strict=True):
        assert actual.dtype == np.float16
        np.testing.assert_allclose(actual, expected, rtol=5e-3, atol=5e-3)


def test_what_no_rule_takes_stays() -> None:
    asked = []
    mod = build(inputs(*SPLIT), legacy)
    fused = FuseAttention(lambda func: bool(asked.append(func)))(mod)
    assert len(asked) == 1
    assert operators(fused) == operators(mod)
    assert len(fused.functions) == 1


@pytest.mark.parametrize("kind", ["float32", "bool"])
@pytest.mark.parametrize(("above", "is_band"), [(1, True), (3, True), (-2, True), (1, False)])
def test_bands(kind: str, above: int, is_band: bool) -> None:
    """A causal mask that is a constant is not read any more."""
    mask = np.triu(np.full((1, 1, 5, 7), -1e9 if kind == "float32" else True, kind), above)
    mask[..., 4, 0] = mask[..., 4, 0] if is_band else mask[..., 0, 6]

    def body(bb: relax.BlockBuilder, q: Any, k: Any, v: Any) -> relax.Expr:
        if kind == "float32":
            return legacy(bb, q, k, v, constant(mask))
        q, k, v = (heads(bb, x, 3) for x in (q, k, v))
        scores = bb.emit(op.matmul(q, bb.emit(op.permute_dims(k, [0, 1, 3, 2]))))
        scores = bb.emit(op.where(constant(mask), scalar(-1e9), scores))
        return bb.emit(op.matmul(bb.emit(op.nn.softmax(scores, -1)), v))

    mod = build(inputs(*SPLIT), body)
    fused = FuseAttention(lambda _: True, bands=True)(mod)
    (kernel,) = (f for f in fused.functions.values() if isinstance(f, tirx.PrimFunc))
    assert len(kernel.params) == (4 if is_band else 5)
    assert_close(mod, fused, *(random(*shape, seed=i) for i, shape in enumerate(SPLIT)))


def scores_are_read_twice(bb: relax.BlockBuilder, q: Any, k: Any, v: Any) -> list[relax.Expr]:
    scores = bb.emit(op.matmul(q, bb.emit(op.permute_dims(k, [0, 2, 1]))))
    weights = bb.emit(op.nn.softmax(scores, -1))
    return [bb.emit(op.matmul(weights, v)), bb.emit(op.abs(scores))]


def weights_are_an_output(bb: relax.BlockBuilder, q: Any, k: Any, v: Any) -> list[relax.Expr]:
    scores = bb.emit(op.matmul(q, bb.emit(op.permute_dims(k, [0, 2, 1]))))
    weights = bb.emit(op.nn.softmax(scores, -1))
    return [bb.emit(op.matmul(weights, v)), weights]


def other_axis(bb: relax.BlockBuilder, q: Any, k: Any, v: Any) -> relax.Expr:
    scores = bb.emit(op.matmul(q, bb.emit(op.permute_dims(k, [0, 2, 1]))))
    return bb.emit(op.matmul(bb.emit(op.nn.softmax(scores, 1)), v))


def other_guard(bb: relax.BlockBuilder, q: Any, k: Any, v: Any) -> relax.Expr:
    scores = bb.emit(op.matmul(q, bb.emit(op.permute_dims(k, [0, 2, 1]))))
    weights = bb.emit(op.nn.softmax(scores, -1))
    weights = bb.emit(op.where(bb.emit(op.isnan(weights)), scalar(1.0), weights))
    return bb.emit(op.matmul(weights, v))


def no_product(bb: relax.BlockBuilder, q: Any, k: Any, v: Any) -> relax.Expr:
    return bb.emit(op.matmul(bb.emit(op.nn.softmax(bb.emit(op.multiply(q, q)), -1)), v))


@pytest.mark.parametrize(
    "body", [scores_are_read_twice, weights_are_an_output, other_axis, other_guard, no_product]
)
def test_leaves(body: Body) -> None:
    shapes = [(2, 5, 5), (2, 5, 5), (2, 5, 3)]
    mod = build(inputs(*shapes), body)
    fused = fuse(mod)
    assert operators(fused) == operators(mod)


def test_another_reader_keeps_the_transposed_result() -> None:
    """The product itself is read too: the transpose stays outside."""

    def body(bb: relax.BlockBuilder, q: Any, k: Any, v: Any) -> list[relax.Expr]:
        scores = bb.emit(op.matmul(q, bb.emit(op.permute_dims(k, [0, 2, 1]))))
        result = bb.emit(op.matmul(bb.emit(op.nn.softmax(scores, -1)), v))
        return [bb.emit(op.permute_dims(result, [1, 0, 2])), bb.emit(op.abs(result))]

    shapes = [(2, 5, 4), (2, 7, 4), (2, 7, 3)]
    mod = build(inputs(*shapes), body)
    fused = fuse(mod)
    assert left(fused) == {"relax.call_tir", "relax.permute_dims", "relax.abs"}
    assert_close(mod, fused, *(random(*shape, seed=i) for i, shape in enumerate(shapes)))


def assert_close(before: tvm.IRModule, after: tvm.IRModule, *values: np.ndarray) -> None:
    for expected, actual in zip(run(before, *values), run(after, *values), strict=True):
        np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-5)
