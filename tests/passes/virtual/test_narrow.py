"""NarrowRows: only what is read is computed."""

from __future__ import annotations

from typing import Any

import pytest
import tvm
import tvm_ffi
from tvm import relax, tirx
from tvm.relax import op

from tests.passes.modules import assert_same, build, operators, random
from tvmext.passes.constants import constant
from tvmext.passes.virtual.narrow import NarrowRows
from tvmext.passes.virtual.virtualize import VirtualTensors

N = tirx.Var("n", "int64")
WEIGHT, ROW = random(4, 4), random(4)


def narrow(mod: tvm.IRModule) -> tvm.IRModule:
    before = mod.script()
    after = NarrowRows()(mod)
    assert mod.script() == before, "the module was changed in place"
    relax.analysis.well_formed(after)  # raises
    return after


def shapes(mod: tvm.IRModule, name: str) -> list[list[Any]]:
    """The sizes of what each call of an operator makes; a symbolic one by its name."""
    found = []
    for block in mod["main"].body.blocks:
        for binding in block.bindings:
            if getattr(getattr(binding.value, "op", None), "name", "") == f"relax.{name}":
                sizes = binding.var.ty.shape
                found.append([getattr(size, "value", None) or str(size) for size in sizes])
    return found


def layer(bb: relax.BlockBuilder, x: relax.Var) -> relax.Var:
    """[b, t, 4] -> [b, t, 4]: attention of two heads, a residual, a norm and a product."""
    batch, rows, _ = x.ty.shape

    def heads(t: relax.Expr, axes: list[int]) -> relax.Var:
        return bb.emit(op.permute_dims(bb.emit(op.reshape(t, (batch, rows, 2, 2))), axes))

    query = bb.emit(op.matmul(x, constant(WEIGHT)))
    scores = bb.emit(op.matmul(heads(query, [0, 2, 1, 3]), heads(x, [0, 2, 3, 1])))
    weights = bb.emit(op.nn.softmax(bb.emit(op.multiply(scores, relax.const(0.7, "float32")))))
    mixed = bb.emit(op.matmul(weights, heads(x, [0, 2, 1, 3])))
    back = bb.emit(op.reshape(bb.emit(op.permute_dims(mixed, [0, 2, 1, 3])), (batch, rows, 4)))
    summed = bb.emit(op.add(x, back))
    norm = bb.emit(op.nn.layer_norm(summed, constant(ROW), constant(ROW), [-1]))
    return bb.emit(op.matmul(norm, constant(WEIGHT)))


@pytest.mark.parametrize("batch", [3, N], ids=str)
@pytest.mark.parametrize("begin, end", [(0, 1), (4, 5), (1, 3)])
def test_a_layer_computes_the_rows_that_are_read(batch: Any, begin: int, end: int) -> None:
    def body(bb: relax.BlockBuilder, x: relax.Var) -> relax.Expr:
        first = layer(bb, x)
        return op.strided_slice(layer(bb, first), [1], [begin], [end])

    mod = build([("x", (batch, 5, 4), "float32")], body)
    after = narrow(mod)
    rows, sizes = end - begin, str(batch) if batch is N else batch
    assert shapes(after, "nn.layer_norm") == [[sizes, 5, 4], [sizes, rows, 4]]
    assert shapes(after, "nn.softmax") == [[sizes, 2, 5, 5], [sizes, 2, rows, 5]]
    assert_same(mod, VirtualTensors()(after), random(3, 5, 4))


@pytest.mark.parametrize("n", [3, N], ids=str)
def test_what_is_put_back_cancels(n: Any) -> None:
    def body(bb: relax.BlockBuilder, x: relax.Var) -> relax.Expr:
        made = bb.emit(op.matmul(x, constant(WEIGHT)))
        heads = bb.emit(op.permute_dims(bb.emit(op.reshape(made, (n, 5, 2, 2))), [0, 2, 1, 3]))
        return op.nn.softmax(bb.emit(op.strided_slice(heads, [2], [1], [2])))

    mod = build([("x", (n, 5, 4), "float32")], body)
    after = VirtualTensors()(narrow(mod))
    assert shapes(after, "matmul") == [[n if n == 3 else "n", 1, 4]]
    assert not operators(after)["relax.broadcast_to"]
    kernels = [gvar.name_hint for gvar in after.get_global_vars()]
    assert not any("broadcast" in name for name in kernels), kernels
    assert_same(mod, after, random(3, 5, 4))


def test_several_readers_need_what_holds_all_they_read() -> None:
    def body(bb: relax.BlockBuilder, x: relax.Var) -> list[relax.Expr]:
        made = bb.emit(op.nn.softmax(x))
        one = bb.emit(op.strided_slice(made, [0], [1], [3]))
        two = bb.emit(op.take(made, constant(random(1).astype("int64") * 0 + 4), 0, "clip"))
        return [op.exp(one), op.exp(two)]

    mod = build([("x", (9, 4), "float32")], body)
    after = narrow(mod)
    assert shapes(after, "nn.softmax") == [[4, 4]]
    assert_same(mod, after, random(9, 4))


def test_reductions_and_operands_that_are_broadcast() -> None:
    def body(bb: relax.BlockBuilder, x: relax.Var, y: relax.Var) -> relax.Expr:
        total = bb.emit(op.mean(x, [1]))
        kept = bb.emit(op.max(x, [0, 1], keepdims=True))
        both = bb.emit(op.add(bb.emit(op.multiply(total, y)), kept))
        return op.strided_slice(both, [1, 2], [2, 1], [4, 3])

    mod = build([("x", (6, 3, 5), "float32"), ("y", (1, 1, 5), "float32")], body)
    after = narrow(mod)
    assert shapes(after, "mean") == [[2, 2]]
    assert shapes(after, "max") == [[1, 1, 2]]
    assert_same(mod, VirtualTensors()(after), random(6, 3, 5), random(1, 1, 5))


def _with_output(bb: relax.BlockBuilder, x: relax.Var) -> list[relax.Expr]:
    made = bb.emit(op.nn.softmax(x))
    return [op.exp(made), op.strided_slice(made, [0], [0], [1])]


def _along_the_axis(bb: relax.BlockBuilder, x: relax.Var) -> relax.Expr:
    return op.strided_slice(bb.emit(op.nn.softmax(x)), [1], [0], [1])


def _by_data(bb: relax.BlockBuilder, x: relax.Var) -> relax.Expr:
    place = bb.emit(op.argmax(x, 0))
    return op.take(bb.emit(op.nn.softmax(x)), place, 0, "clip")


def _both_halves(bb: relax.BlockBuilder, x: relax.Var) -> relax.Expr:
    halves = bb.emit(op.split(bb.emit(op.nn.softmax(x)), 2, 0))
    return op.add(bb.emit(halves[0]), bb.emit(halves[1]))


def _epilogue(bb: relax.BlockBuilder, x: relax.Var) -> relax.Expr:
    sums = bb.emit(op.cumsum(x, 0))
    return op.strided_slice(bb.emit(op.nn.relu(sums)), [0], [0], [1])


def _moved_epilogue(bb: relax.BlockBuilder, x: relax.Var) -> relax.Expr:
    sums = bb.emit(op.permute_dims(bb.emit(op.cumsum(x, 0))))
    return op.strided_slice(bb.emit(op.nn.relu(sums)), [0], [0], [1])


def _integers(bb: relax.BlockBuilder, x: relax.Var) -> relax.Expr:
    whole = bb.emit(op.astype(x, "int32"))
    return op.strided_slice(bb.emit(op.floor_divide(whole, whole)), [0], [0], [1])


MUST_NOT = (
    *(_with_output, _along_the_axis, _by_data, _both_halves),
    *(_epilogue, _moved_epilogue, _integers),
)


@pytest.mark.parametrize("body", MUST_NOT)
def test_must_not_fire(body: Any) -> None:
    mod = build([("x", (6, 6), "float32")], body)
    assert tvm_ffi.structural_equal(narrow(mod), mod)


def test_an_axis_that_may_be_empty_is_left_alone() -> None:
    def body(bb: relax.BlockBuilder, x: relax.Var) -> relax.Expr:
        first = op.strided_slice(bb.emit(op.nn.softmax(x)), [0], [0], [1], assume_inbound=True)
        return op.exp(bb.emit(first))

    mod = build([("x", (N, 4), "float32")], body)
    assert tvm_ffi.structural_equal(narrow(mod), mod)


def test_half_of_a_split() -> None:
    def body(bb: relax.BlockBuilder, x: relax.Var) -> relax.Expr:
        halves = bb.emit(op.split(bb.emit(op.nn.softmax(x)), 2, 0))
        return op.exp(bb.emit(halves[1]))

    mod = build([("x", (6, 4), "float32")], body)
    after = narrow(mod)
    assert shapes(after, "nn.softmax") == [[3, 4]]
    assert_same(mod, after, random(6, 4))
