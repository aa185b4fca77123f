"""Divisions that do not trap, and which of them need no cases of signs."""

from __future__ import annotations

import numpy as np
import pytest
import tvm
import tvm_ffi
from onnx import parser
from tvm import te, tirx
from tvm.ir import Var
from tvm.tirx import PrimFunc

import tvmext
from tvmext.options import Options
from tvmext.passes.safe_division import SafeDivision
from tvmext.passes.signs import Signs

N, M = Var("n", "int64"), Var("m", "int64")


def divisions(func: PrimFunc) -> list[str]:
    body = SafeDivision()(tvm.IRModule({"main": func}))["main"].body
    found: list[str] = []
    kinds = (tirx.Div, tirx.Mod, tirx.FloorDiv, tirx.FloorMod)
    tvm_ffi.structural_walk(body, (kinds, lambda node: found.append(type(node).__name__)))
    return found


def reads_at(index, size=N * M) -> PrimFunc:
    """y[i] = x[index(i)] for i below `size`; n and m are dims of x."""
    x = te.placeholder((N, M), name="x")
    return te.create_prim_func([x, te.compute((size,), lambda i: x[index(i)])])


def test_positions_divide_as_the_processor_does() -> None:
    func = reads_at(lambda i: (i // M, i % M))
    assert set(divisions(func)) == {"Div", "Mod"}
    assert "T.max(" in SafeDivision()(tvm.IRModule({"main": func}))["main"].script()


def test_what_may_be_negative_is_rounded_down() -> None:
    assert "FloorDiv" in divisions(reads_at(lambda i: ((i - 1) // M, i % M)))
    data = te.placeholder((N,), "int64", name="d")
    size = te.placeholder((M,), "int64", name="s")
    quotient = te.compute((N,), lambda i: tirx.floordiv(data[i], M))
    assert divisions(te.create_prim_func([data, size, quotient])) == ["FloorDiv"]


def test_signs_of_scalars_and_buffers() -> None:
    x = tirx.decl_buffer([N], "int64", "x")
    i, known, less = (Var(name, "int64") for name in ("i", "known", "less"))
    cell, moved, taken = (tirx.decl_buffer([1], "int64", name) for name in ("c", "d", "e"))
    zero = tirx.const(0, "int64")
    stores = [
        tirx.BufferStore(cell, i * N + cell[zero], [zero]),  # by itself, which began with zero
        tirx.BufferStore(moved, tirx.max(N, M) - 1, [zero]),
        tirx.BufferStore(taken, N, [zero]),
        tirx.Evaluate(tirx.call_intrin("handle", "tirx.address_of", taken[zero])),
    ]
    loop = tirx.For(i, 0, N, tirx.ForKind.SERIAL, tirx.SeqStmt(stores))
    made = [tirx.AllocBuffer(buffer) for buffer in (cell, moved, taken)]
    bound = [tirx.Bind(known, tirx.min(cell[zero], N) // 3), tirx.Bind(less, known - N)]
    start = tirx.BufferStore(cell, zero, [zero])
    signs = Signs(PrimFunc([x], tirx.SeqStmt([*made, start, *bound, loop])))
    assert signs(i) and signs(known) and signs(cell[zero]) and signs(tirx.max(less, zero))
    assert not any(map(signs, (less, M, moved[zero], taken[zero], x[zero], N - 1)))


@pytest.mark.parametrize("sizes", [(3, 5), (1, 7), (0, 4)])
def test_quotients_are_right(sizes: tuple[int, int]) -> None:
    n, m = sizes
    func = reads_at(lambda i: (i // M, (i % M + i // M // (M + N)) % M))
    library = tvm.compile(SafeDivision()(tvm.IRModule({"main": func})), "llvm")
    x = np.random.default_rng(0).random(sizes, np.float32)
    out = tvm.runtime.tensor(np.zeros(n * m, np.float32))
    library["main"](tvm.runtime.tensor(x), out)
    i = np.arange(n * m)
    np.testing.assert_array_equal(out.numpy(), x[i // m, (i % m + i // m // (m + n)) % m])


def test_reshapes_to_quotients_compile_without_optimisation() -> None:
    """LLVM took 25 s for each: their divisions are inside of each other."""
    model = parser.parse_model("""
        <ir_version: 9, opset_import: ["": 18]>
        g (float[16, 3] x, float[batch] y) => (float[p, q, 3] a, float[r, s, 3] b) {
          n = Shape (y)
          all = Constant <value = int64[1] {16}> ()
          rest = Div (all, n)
          three = Constant <value = int64[1] {3}> ()
          first = Concat <axis = 0> (rest, n, three)
          c = Reshape (x, first)
          d = Transpose <perm = [1, 0, 2]> (c)
          a = Neg (d)
          second = Concat <axis = 0> (rest, n, three)
          b = Reshape (a, second)
        }""")
    compiled = tvmext.compile(model, options=Options(opt_level=0))
    x = np.random.default_rng(0).random((16, 3), np.float32)
    got = compiled.run({"x": x, "y": np.zeros(4, np.float32)})
    want = -x.reshape(4, 4, 3).transpose(1, 0, 2)
    np.testing.assert_array_equal(got["a"], want)
    np.testing.assert_array_equal(got["b"], want.reshape(4, 4, 3))
