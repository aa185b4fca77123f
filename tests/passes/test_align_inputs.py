"""Inputs that begin at no multiple of 64 bytes: kernels are told, and compute the same."""

from __future__ import annotations

import numpy as np
import pytest
import tvm
from tvm import relax
from tvm.relax import op, transform

import tvmext
from tests.passes.modules import build
from tvmext.passes.align_inputs import ALIGNMENT, AlignInputs, input_alignment


def network(size: int | tvm.tirx.Var = 48) -> tvm.IRModule:
    """Kernels of inputs under another shape, and of what others made."""

    def body(bb: relax.BlockBuilder, x: relax.Var) -> relax.Expr:
        flat = bb.emit(op.reshape(x, (4 * size,)))
        return bb.emit(op.tanh(bb.emit(op.nn.softmax(bb.emit(op.exp(flat))))))

    return build([("x", (4, size), "float32")], body)


def legalized(mod: tvm.IRModule) -> tvm.IRModule:
    passes = [transform.LegalizeOps(), transform.RewriteDataflowReshape()]
    return tvm.transform.Sequential(passes)(mod)


@pytest.mark.parametrize("size", [48, "n"])
def test_every_kernel_is_told(size: int | str) -> None:
    mod = legalized(network(tvm.tirx.Var("n", "int64") if size == "n" else size))
    before = mod.script()
    after = AlignInputs()(mod)
    assert mod.script() == before, "the module was changed in place"
    assert (input_alignment(mod), input_alignment(after)) == (64, ALIGNMENT)
    functions = [f for _, f in after.functions_items() if isinstance(f, tvm.tirx.PrimFunc)]
    buffers = [p for f in functions for p in f.params if tvm.tirx.is_buffer_var(p)]
    assert len(buffers) >= 6 and {p.ty.data_alignment for p in buffers} == {ALIGNMENT}


def test_must_not_fire_where_others_are_called() -> None:
    def body(bb: relax.BlockBuilder, x: relax.Var) -> relax.Expr:
        call = relax.call_pure_packed("somebody", x, ty_args=relax.TensorType((4, 4), "float32"))
        return bb.emit(call)

    assert input_alignment(AlignInputs()(build([("x", (4, 4), "float32")], body))) == 64


def lying(array: np.ndarray, offset: int) -> np.ndarray:
    """A copy `offset` bytes after a multiple of 64."""
    memory = np.zeros(array.nbytes + 128, "uint8")
    start = -memory.ctypes.data % 64 + offset
    copy = memory[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
    copy[...] = array
    return copy


def test_inputs_are_read_where_they_lie_or_copied() -> None:
    x = np.random.default_rng(0).standard_normal((4, 48)).astype("float32")
    exp = np.exp(x.reshape(-1).astype("float64"))
    expected = np.tanh(np.exp(exp - exp.max()) / np.exp(exp - exp.max()).sum())
    told = tvmext.compile(network())
    without = tvmext.compile(network(), options=tvmext.Options(disabled_pass=("AlignInputs",)))
    assert (told.metadata.input_alignment, without.metadata.input_alignment) == (ALIGNMENT, 64)
    for model, offset, in_place in ((told, 16, True), (told, 4, False), (without, 16, False)):
        array = lying(x, offset)
        assert (model._slots[0].bind(array).data_ptr() == array.ctypes.data) == in_place
        (result,) = model.run(array).values()
        np.testing.assert_allclose(result, expected, rtol=1e-5, atol=1e-7)
