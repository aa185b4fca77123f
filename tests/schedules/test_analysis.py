"""Reading kernels as equations."""

from __future__ import annotations

import tvm
import tvm_ffi
from tvm import relax, te, tirx

from tests.schedules.cpu.kernels import kernel
from tvmext.schedules.kernel.analysis import (
    View,
    analyzer,
    combiner,
    constant,
    flat_index,
    stride,
    variables,
)
from tvmext.schedules.kernel.view import view
from tvmext.schedules.rule import Declined

op = relax.op


def seen(build: object, *inputs: tuple[tuple[object, ...], str]) -> View:
    answer = view(kernel(build, *inputs).func)  # type: ignore[arg-type]
    assert isinstance(answer, View)
    return answer


def test_softmax_is_four_blocks() -> None:
    softmax = seen(lambda x: op.nn.softmax(x, 1), (("n", 12), "float32"))
    kinds = [(len(b.spatial), len(b.reduce)) for b in softmax.blocks]
    assert kinds == [(1, 1), (2, 0), (1, 1), (2, 0)]
    operators = [block.combiner.op for block in softmax.reductions if block.combiner]
    assert operators == ["max", "add"]
    exponentials = softmax.blocks[1].stores[0].buffer
    assert len(softmax.consumers[exponentials]) == 2
    assert softmax.outputs == softmax.buffers[-1:]
    assert softmax.blocks[0].reduce[0].size == 12
    assert softmax.blocks[0].spatial[0].size is None


def test_a_reduction_of_two_values_binds_none_of_its_scalars() -> None:
    argmax = seen(lambda x: op.argmax(x, 1), ((3, 5), "float32"))
    first = argmax.blocks[0]
    assert len(first.stores) == 2
    assert first.is_reduction
    assert first.combiner is None
    own = {axis.var for axis in first.axes}
    assert all(variables(store.value) <= own for store in first.stores)


def test_combiner_takes_operands_in_either_order() -> None:
    x = te.placeholder((4, 8), name="x")
    k = te.reduce_axis((0, 8))
    y = te.compute((4,), lambda i: te.max(x[i, k], axis=k))
    answer = view(te.create_prim_func([x, y]))
    assert isinstance(answer, View)
    store = answer.blocks[0].stores[0]
    turned = type(store)(store.buffer, store.indices, tirx.max(store.value.b, store.value.a))
    assert combiner(store) is not None
    assert combiner(turned) is not None


def test_strides_of_a_transposed_load() -> None:
    moved = seen(lambda x: op.permute_dims(x, (1, 0)), ((7, "n"), "float32"))
    (block,) = moved.blocks
    ana = analyzer(block.axes)
    rows, columns = block.axes
    offset = flat_index(block.loads[0])
    assert constant(stride(offset, rows.var, ana)) == 1
    step = stride(offset, columns.var, ana)
    assert constant(step) is None
    assert tvm_ffi.structural_equal(step, moved.buffers[0].shape[1])


def test_declines_what_is_not_a_list_of_equations() -> None:
    scatter = kernel(
        lambda x, i, u: op.scatter_nd(x, i, u),
        ((6, 8), "float32"),
        ((2, 1), "int64"),
        ((2, 8), "float32"),
    )
    answer = view(scatter.func)
    assert isinstance(answer, Declined)
    assert "list of stores" in answer.reason
    scheduled = tvm.s_tir.Schedule(kernel(op.nn.relu, ((4, 8), "float32")).func)
    (block,) = scheduled.get_child_blocks(scheduled.get_sblock("root"))
    scheduled.parallel(scheduled.get_loops(block)[0])
    assert isinstance(view(scheduled.mod["main"]), Declined)
