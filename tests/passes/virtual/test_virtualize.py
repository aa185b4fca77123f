"""The pass on Relax: what is left of chains of movement operators; results stay the same."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
import tvm
from tvm import relax, tirx
from tvm.relax import op

from tests.passes.modules import assert_same, build, operators, random
from tvmext.passes.virtual.virtualize import VirtualTensors

N = tirx.Var("n", "int64")


def kernels(mod: tvm.IRModule) -> list[str]:
    """Names of the TIR kernels that main calls."""
    found: list[str] = []

    def visit(expr: relax.Expr) -> None:
        if isinstance(expr, relax.Call) and expr.op.name == "relax.call_tir":
            found.append(expr.args[0].name_hint)

    relax.analysis.post_order_visit(mod["main"], visit)
    return found


def virtual(mod: tvm.IRModule) -> tvm.IRModule:
    before = mod.script()
    after = VirtualTensors()(mod)
    assert mod.script() == before, "the module was changed in place"
    relax.analysis.well_formed(after)  # raises
    return after


@pytest.mark.parametrize("n", [5, N], ids=str)
def test_what_cancels_leaves_nothing(n: Any) -> None:
    def body(bb, x):
        heads = bb.emit(op.permute_dims(bb.emit(op.reshape(x, (n, 3, 4))), [1, 0, 2]))
        back = bb.emit(op.reshape(bb.emit(op.permute_dims(heads, [1, 0, 2])), (n, 12)))
        return op.exp(back)

    mod = build([("x", (n, 12), "float32")], body)
    after = virtual(mod)
    assert operators(after) == Counter({"relax.exp": 1})
    assert_same(mod, after, random(5, 12))


@pytest.mark.parametrize("n", [5, N], ids=str)
def test_a_view_is_one_view(n: Any) -> None:
    def body(bb, x):
        one = bb.emit(op.expand_dims(bb.emit(op.reshape(x, (n, 3, 4))), [0]))
        return op.nn.softmax(bb.emit(op.flatten(one)))

    mod = build([("x", (n, 12), "float32")], body)
    after = virtual(mod)
    assert kernels(after) == ["view"]
    assert operators(after)["relax.nn.softmax"] == 1
    assert_same(mod, after, random(5, 12))


@pytest.mark.parametrize("n", [5, N], ids=str)
def test_a_chain_is_one_loader(n: Any) -> None:
    def body(bb, x, y):
        both = bb.emit(op.concat([x, y], 1))
        heads = bb.emit(op.permute_dims(bb.emit(op.reshape(both, (n, 4, 5))), [1, 0, 2]))
        return op.nn.softmax(bb.emit(op.nn.pad(heads, [0, 0, 0, 0, 1, 2])))

    mod = build([("x", (n, 12), "float32"), ("y", (n, 8), "float32")], body)
    after = virtual(mod)
    assert kernels(after) == ["concat_reshape_pad"]
    assert_same(mod, after, random(5, 12), random(5, 8, seed=1))


def test_elementwise_consumers_get_loaders_of_their_own() -> None:
    def body(bb, x):
        turned = bb.emit(op.permute_dims(x, [1, 0]))
        return [op.exp(turned), op.tanh(turned)]

    mod = build([("x", (4, 6), "float32")], body)
    after = virtual(mod)
    assert len(kernels(after)) == 2
    assert_same(mod, after, random(4, 6))


def test_others_share_one() -> None:
    def body(bb, x):
        turned = bb.emit(op.permute_dims(x, [1, 0]))
        return [op.exp(turned), op.nn.softmax(turned), op.mean(turned, [0])]

    mod = build([("x", (4, 6), "float32")], body)
    after = virtual(mod)
    assert kernels(after) == ["permute_dims"]
    assert_same(mod, after, random(4, 6))


def test_a_map_from_memory_that_exists_is_preferred() -> None:
    """The long concat must exist for softmax; the longer one then reads two parts, not five."""

    def body(bb, a, b, c, d, e):
        long = bb.emit(op.concat([a, b, c, d], 1))
        return [op.nn.softmax(long), op.nn.softmax(bb.emit(op.concat([long, e], 1)))]

    mod = build([(name, (3, 2), "float32") for name in "abcde"], body)
    after = virtual(mod)
    (call,) = [
        binding.value
        for block in after["main"].body.blocks
        for binding in block.bindings
        if str(binding.value.op.name) == "relax.call_tir" and len(binding.value.args[1]) == 2
    ]
    assert call is not None
    assert_same(mod, after, *[random(3, 2, seed=k) for k in range(5)])


def test_split_of_which_parts_are_read() -> None:
    def body(bb, x):
        parts = bb.emit(op.split(x, 3, 1))
        first, last = bb.emit(relax.TupleGetItem(parts, 0)), bb.emit(relax.TupleGetItem(parts, 2))
        return op.multiply(first, last)

    mod = build([("x", (4, 6), "float32")], body)
    after = virtual(mod)
    assert kernels(after) == ["split", "split1"]
    assert_same(mod, after, random(4, 6))


def test_outputs_are_physical() -> None:
    mod = build(
        [("x", (4, 6), "float32")],
        lambda bb, x: [op.permute_dims(x, [1, 0]), op.reshape(x, (6, 4)), op.reshape(x, (4, 6))],
    )
    assert_same(mod, virtual(mod), random(4, 6))


def test_indices_that_are_data() -> None:
    def body(bb, table, rows, x):
        picked = bb.emit(op.take(table, bb.emit(op.reshape(rows, (4,))), 0, "wrap"))
        both = bb.emit(op.concat([picked, x], 0))
        return op.exp(bb.emit(op.permute_dims(both, [1, 0])))

    mod = build(
        [("table", (9, 3), "float32"), ("rows", (2, 2), "int64"), ("x", (2, 3), "float32")], body
    )
    after = virtual(mod)
    assert kernels(after) == ["reshape_take_permute_dims"]
    rows = np.array([[0, -1], [8, 3]], "int64")
    assert_same(mod, after, random(9, 3), rows, random(2, 3, seed=1))


def test_a_branch_is_left_alone() -> None:
    builder = relax.BlockBuilder()
    x = relax.Var("x", relax.TensorType((4, 6), "float32"))
    flag = relax.Var("flag", relax.TensorType((), "bool"))
    with builder.function("main", [flag, x]):
        turned = builder.emit(op.permute_dims(x, [1, 0]))
        result = builder.emit(relax.If(flag, _branch(op.exp, turned), _branch(op.tanh, turned)))
        builder.emit_func_output(op.add(result, turned))
    mod = builder.get()
    after = virtual(mod)
    for value in (True, False):
        assert_same(mod, after, np.array(value), random(4, 6))


def _branch(operator: Any, arg: relax.Var) -> relax.SeqExpr:
    var = relax.Var("inner", arg.ty)
    block = relax.BindingBlock([relax.VarBinding(var, operator(arg))])
    return relax.SeqExpr([block], var)


def test_what_it_does_not_know_stays() -> None:
    """A take that fills with NaN makes values that its operand does not have."""
    mod = build(
        [("x", (4, 6), "float32"), ("i", (3,), "int64")],
        lambda bb, x, i: op.exp(bb.emit(op.take(x, i, 0, "nan"))),
    )
    assert operators(virtual(mod))["relax.take"] == 1


@pytest.mark.parametrize("n", [5, N], ids=str)
def test_an_operator_without_a_rule_takes_part(n: Any) -> None:
    def body(bb, x, i, j):
        turned = bb.emit(op.permute_dims(x, [1, 0]))
        return op.exp(bb.emit(op.index_tensor(turned, (i, j))))

    mod = build([("x", (n, 4), "float32"), ("i", (3,), "int64"), ("j", (3,), "int64")], body)
    after = virtual(mod)
    assert kernels(after) == ["permute_dims_index_tensor"]
    i, j = np.array([0, 3, 1]), np.array([4, 0, 2])
    assert_same(mod, after, random(5, 4), i, j)


def test_kernels_that_copy_take_part() -> None:
    """The same operators as call_tir: legalized before the pass."""

    def body(bb, x):
        turned = bb.emit(op.permute_dims(x, [1, 0]))
        return op.exp(bb.emit(op.permute_dims(turned, [1, 0])))

    mod = build([("x", (4, 6), "float32")], body)
    after = virtual(relax.transform.LegalizeOps()(mod))
    assert kernels(after) == ["tir_exp"]
    assert_same(mod, after, random(4, 6))


def test_what_is_known_is_written_down() -> None:
    """Zeros and chosen rows of a table for a product; zeros for a sum stay a number there."""

    def body(bb: relax.BlockBuilder, x: relax.Var) -> relax.Expr:
        zeros = bb.emit(op.full((3, 4), relax.const(0.0), "float32"))
        columns = relax.const(np.array([[3, 1, 4, 0]] * 3))
        rows = bb.emit(op.gather_elements(relax.const(random(3, 5)), columns, 1))
        parts = [bb.emit(op.matmul(part, x)) for part in (zeros, rows)]
        ones = bb.emit(op.full((3, 6), relax.const(1.0), "float32"))
        return op.add(bb.emit(op.add(*parts)), ones)

    mod = build([("x", (4, 6), "float32")], body)
    after = tvm.transform.Sequential([VirtualTensors(), relax.transform.DeadCodeElimination()])(mod)
    assert operators(after) == {"relax.matmul": 2, "relax.add": 2, "relax.call_tir": 1}
    assert_same(mod, after, random(4, 6))
