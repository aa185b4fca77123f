"""The exponential of a softmax: its error bound, what vanishes, and what is no number."""

from __future__ import annotations

import numpy as np
from tvm import tirx

from tests.schedules.cpu.kernels import ARCH, run
from tvmext.schedules.cpu.emit import VECTORIZED, block, loop
from tvmext.schedules.cpu.exponential import exp2_of_negative

LANES = 16


def evaluate(x: np.ndarray) -> np.ndarray:
    source, out = (tirx.decl_buffer([x.size], "float32", name) for name in ("x0", "y"))

    def element(i: tirx.Var) -> tirx.Stmt:
        names, value = exp2_of_negative(source[i])
        binds = (tirx.Bind(var, expr) for var, expr in names)
        return block(*binds, tirx.BufferStore(out, value, [i]))

    body = loop(
        x.size // LANES, lambda v: loop(LANES, lambda lane: element(v * LANES + lane), VECTORIZED)
    )
    return run(tirx.PrimFunc([source, out], body), {"x0": x}, ARCH)[0]


def test_error_bound() -> None:
    x = -np.concatenate([np.geomspace(1e-38, 126, 1 << 16), np.linspace(0, 126, 1 << 16)])
    x = x.astype("float32")
    exact = np.exp2(x.astype("float64"))
    assert np.abs(evaluate(x) / exact - 1).max() < 2e-7


def test_specials() -> None:
    x = np.resize(np.array([0, -0.0, -126.6, -127.5, -1e9, -3e38, -np.inf, np.nan], "float32"), 64)
    expected = np.resize(np.array([1, 1, 0, 0, 0, 0, 0, np.nan], "float32"), 64)
    np.testing.assert_array_equal(evaluate(x), expected)
    quiet = np.full(LANES, 0x7FC12345, "uint32").view("float32")
    assert np.isnan(evaluate(quiet)).all()
