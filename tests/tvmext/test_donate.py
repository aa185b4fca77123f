"""A library whose caller gives an input away: who may write where, and what is said about it."""

from __future__ import annotations

import numpy as np
import pytest
from tvm import relax
from tvm.relax import op

import tvmext
from tests.passes.modules import build
from tvmext.errors import InputError, OptionError, OptionWarning

SHAPE = (8, 16)


def network() -> object:
    def body(bb: relax.BlockBuilder, x: relax.Var, at: relax.Var, row: relax.Var) -> relax.Expr:
        return op.scatter_nd(x, at, bb.emit(op.exp(row)), "update")

    inputs = [("x", SHAPE, "float32"), ("at", (1, 1), "int64"), ("row", (1, 16), "float32")]
    return build(inputs, body)


@pytest.fixture(scope="module")
def compiled() -> tvmext.CompiledModel:
    return tvmext.compile(network(), options=tvmext.Options(donate=("x",)))


def aligned(lie: int = 0) -> np.ndarray:
    """Zeros that begin `lie` bytes after a multiple of 64."""
    memory = np.zeros(8 * 16 * 4 + 128, "uint8")
    start = -memory.ctypes.data % 64 + lie
    return memory[start : start + 8 * 16 * 4].view("float32").reshape(SHAPE)


def test_it_is_updated_where_it_lies(compiled: tvmext.CompiledModel) -> None:
    (output,) = compiled.outputs
    assert compiled.metadata.updated_inputs == {output.name: "x"}
    cache = aligned()
    for position in (2, 5):
        row = np.full((1, 16), position, "float32")
        result = compiled.run(cache, np.array([[position]]), row)[output.name]
        assert np.shares_memory(result, cache)
    expected = np.zeros(SHAPE, "float32")
    expected[2], expected[5] = np.exp(2), np.exp(5)
    np.testing.assert_allclose(cache, expected, rtol=1e-6)


def test_what_lies_elsewhere_is_copied(compiled: tvmext.CompiledModel) -> None:
    """And the copy is not handed out: the next call would write to it."""
    (output,) = compiled.outputs
    row = np.zeros((1, 16), "float32")
    first = compiled.run(aligned(4), np.array([[0]]), row)[output.name]
    compiled.run(aligned(4), np.array([[1]]), row)
    assert (first == np.eye(8, dtype="float32")[:1].T).all()


def test_memory_given_twice_is_refused(compiled: tvmext.CompiledModel) -> None:
    cache = aligned()
    with pytest.raises(InputError, match="share memory"):
        compiled.run(cache, np.array([[0]]), cache[3:4])


def test_only_inputs_can_be_given() -> None:
    with pytest.raises(OptionError, match="no input 'y'"):
        tvmext.compile(network(), options=tvmext.Options(donate=("y",)))


def test_what_nothing_updates_is_told() -> None:
    """At -O0 nothing is updated in place; "row" is only read."""
    for options, name in (({"opt_level": 0}, "x"), ({}, "row")):
        with pytest.warns(OptionWarning, match=f"nothing updates input '{name}'"):
            tvmext.compile(network(), options=tvmext.Options(donate=(name,), **options))
