"""Layers of different sizes that share a kernel, and those that must not."""

from __future__ import annotations

import pytest
import tvm
from tvm import relax, te, tirx, topi
from tvm.tirx import PrimFunc

from tests.passes.modules import assert_same, build, random
from tvmext.frontends.dims import Dim
from tvmext.passes.share_kernels import RANGES, ShareKernels

op = relax.op
N, H = tirx.Var("n", "int64"), tirx.Var("h", "int64")


def kernels(mod: tvm.IRModule) -> list[PrimFunc]:
    return [func for func in mod.functions.values() if isinstance(func, PrimFunc)]


def shared(mod: tvm.IRModule) -> tuple[tvm.IRModule, tvm.IRModule]:
    """Legalized, and with shared kernels; the first is left as it was."""
    before = relax.transform.LegalizeOps()(mod)
    text = before.script()
    after = ShareKernels()(before)
    assert before.script() == text
    return before, after


def pooled(bb: relax.BlockBuilder, x: relax.Var) -> relax.Var:
    def half(value: relax.Expr) -> relax.Expr:
        return bb.emit(op.nn.max_pool2d(value, [2, 2], [2, 2], [0, 0, 1, 1], layout="NCHW"))

    return half(half(half(x)))


@pytest.mark.parametrize("size", [1, 2, 7, 16])
def test_layers_of_different_sizes_share_a_kernel(size: int) -> None:
    """Each pooling gives half of what it takes, which a shared kernel still says."""
    mod = build([("x", (N, 3, H, 8), "float32")], pooled)
    before, after = shared(mod)
    assert len(kernels(before)) == 3
    heights = [(f.params[0].shape[2], f.params[-1].shape[2]) for f in kernels(after)]
    assert all(isinstance(taken, tirx.Var) for taken, _ in heights)
    ana = tvm.sym.Analyzer()
    assert all(ana.can_prove_equal(given, (taken + 1) // 2) for taken, given in heights)
    assert_same(before, after, random(2, 3, size, 8))


def flat(bb: relax.BlockBuilder, x: relax.Var, y: relax.Var) -> list[relax.Expr]:
    """The same operation on tensors whose sizes are computed in different ways."""
    wide = bb.emit(op.reshape(x, (N * ((H + 3) // 4), 8)))
    long = bb.emit(op.reshape(y, (N * H, 8)))
    return [bb.emit(op.nn.relu(wide)), bb.emit(op.nn.relu(long))]


@pytest.mark.parametrize("n, h", [(0, 3), (1, 1), (3, 0), (2, 9)])
def test_computed_sizes_become_names(n: int, h: int) -> None:
    inputs = [("x", (N, (H + 3) // 4, 8), "float32"), ("y", (N, H, 8), "float32")]
    before, after = shared(build(inputs, flat))
    relus = [f for f in kernels(after) if len(f.params[0].shape) == 2]
    assert len(relus) == 1
    assert [isinstance(dim, tirx.Var) for dim in relus[0].params[0].shape] == [True, False]
    assert all(tirx.is_buffer_var(param) for param in relus[0].params)
    assert_same(before, after, random(n, (h + 3) // 4, 8), random(n, h, 8, seed=1))


def test_kernels_are_numbered_in_the_order_of_their_calls() -> None:
    """Whatever numbers they have: those of TVM differ from run to run where sizes are free."""

    def body(bb: relax.BlockBuilder, *values: relax.Var) -> list[relax.Expr]:
        hints = ("conv2d9_add2", "conv2d3_add14", "conv2d_add")
        return [
            bb.emit_te(topi.nn.relu, value, primfunc_name_hint=hint)
            for value, hint in zip(values, hints)
        ]

    inputs = [(name, (N, width), "float32") for name, width in (("x", 8), ("y", 9), ("z", 10))]
    after = ShareKernels()(build(inputs, body))
    bindings = after["main"].body.blocks[0].bindings
    called = [binding.value.args[0].name_hint for binding in bindings[:3]]
    assert called == ["conv2d_add", "conv2d_add1", "conv2d_add2"]


def test_fixed_sizes_that_differ_stay_apart() -> None:
    def body(bb: relax.BlockBuilder, x: relax.Var, y: relax.Var, z: relax.Var) -> list[relax.Expr]:
        return [bb.emit(op.nn.relu(value)) for value in (x, y, z)]

    inputs = [("x", (N, 8), "float32"), ("y", (N, 9), "float32"), ("z", (4, 9), "float32")]
    before, after = shared(build(inputs, body))
    assert len(kernels(before)) == len(kernels(after)) == 3


@pytest.mark.parametrize("n", [0, 1, 5])
def test_tensors_of_integers_are_no_sizes(n: int) -> None:
    def body(bb: relax.BlockBuilder, x: relax.Var) -> relax.Expr:
        return bb.emit(op.add(bb.emit(op.add(x, x)), op.arange(0, N, 1, "int64")))

    before, after = shared(build([("x", (N,), "int64")], body))
    assert all(tirx.is_buffer_var(param) for f in kernels(after) for param in f.params[:1])
    assert_same(before, after, random(n).astype("int64"))


@pytest.mark.parametrize("n, h", [(1, 1), (3, 5), (0, 2)])
def test_a_size_that_no_tensor_tells_is_passed(n: int, h: int) -> None:
    """The first row of each picture: a dim of its own, though the tensor has only a product."""

    def firsts(a: te.Tensor, h: tirx.Var) -> te.Tensor:
        return te.compute(a.shape, lambda i, j: a[i // h * h, j])

    def body(bb: relax.BlockBuilder, x: relax.Var) -> relax.Expr:
        return bb.emit_te(firsts, bb.emit(op.reshape(x, (N * H, 4))), H)

    before, after = shared(build([("x", (N, H, 4), "float32")], body))
    scalars = [p for f in kernels(after) for p in f.params if not tirx.is_buffer_var(p)]
    assert len(scalars) == 1
    assert_same(before, after, random(n, h, 4))


def test_conditions_on_sizes_are_no_sizes() -> None:
    """TVM's scan for GPUs asks `n > 256`."""
    mod = build([("x", (4, 300), "float32")], lambda bb, x: bb.emit(op.cumsum(x, axis=1)))
    with tvm.target.Target("nvidia/nvidia-a100"):
        scans = relax.backend.DispatchSortScan()(mod)
        assert len(kernels(ShareKernels()(scans))) == len(kernels(scans))


def test_kernels_know_the_ranges_that_were_declared() -> None:
    before = relax.transform.LegalizeOps()(
        build(
            [("x", (N, (H + 3) // 4, 8), "float32"), ("y", (H, 8), "float32")],
            lambda bb, x, y: [bb.emit(op.nn.relu(x)), bb.emit(op.nn.relu(y))],
        )
    )
    after = ShareKernels({"n": Dim("n", 1, 8), "h": Dim("h", 4, 40), "other": Dim("other")})(before)
    found = [
        [(list(map(int, func.attrs[RANGES][dim.name]))) for dim in func.params[0].shape[:-1]]
        for func in kernels(after)
    ]
    assert sorted(found) == [[[1, 8], [1, 10]], [[4, 40]]]
    assert all(RANGES not in func.attrs for func in kernels(ShareKernels()(before)))
