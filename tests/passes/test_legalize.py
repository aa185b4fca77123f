"""Lowerings of our own give the values that the operator is defined to give."""

from __future__ import annotations

import numpy as np
import pytest
import tvm
from tvm import relax

from tests.passes import modules
from tvmext.passes.legalize import LEGALIZE


@pytest.mark.parametrize("size", [7, "n"])
def test_relu_keeps_nan(size: int | str) -> None:
    dim = tvm.tirx.Var(size, "int64") if isinstance(size, str) else size
    mod = modules.build([("x", [dim], "float32")], lambda _, x: relax.op.nn.relu(x))
    mod = relax.transform.LegalizeOps(LEGALIZE)(mod)
    assert "relax.nn.relu" not in modules.operators(mod)
    run = relax.VirtualMachine(tvm.compile(mod, "llvm"), tvm.cpu())["main"]
    x = np.array([np.nan, -1, 0, 2, np.inf, -np.inf, np.nan], np.float32)
    y = run(tvm.runtime.tensor(x)).numpy()
    np.testing.assert_array_equal(y, np.maximum(x, 0))
