"""What LLVM is told about the kernels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tvm
from tvm import relax, tirx
from tvm.script import tirx as T

from tvmext.arch import CudaArch, from_target, to_target
from tvmext.build.dump import _llvm
from tvmext.build.kernels import Executable, build_kernels, build_module, code_target
from tvmext.build.link import link
from tvmext.schedules.rule import OWN_ADDRESSES

from .models import lower, silent, spec


@T.prim_func(s_tir=True)
def tile(
    x: T.Buffer((3, 3, 64, 8), "float32"),
    w: T.Buffer((3, 3, 64, 16), "float32"),
    y: T.Buffer((8, 16), "float32"),
) -> None:
    sums = T.alloc_buffer((8, 16))
    for row in T.unroll(8):
        for lane in T.vectorized(16):
            sums[row, lane] = T.float32(0)
    for i, j, k in T.grid(3, 3, 64):
        for row in T.unroll(8):
            for lane in T.vectorized(16):
                sums[row, lane] = sums[row, lane] + x[i, j, k, row] * w[i, j, k, lane]
    for row in T.unroll(8):
        for lane in T.vectorized(16):
            y[row, lane] = sums[row, lane]


def test_a_tile_is_one_in_the_code(capfd: pytest.CaptureFixture[str]) -> None:
    """Not one for each of 3 x 3 places; and LLVM knows the option, else TVM only logs it."""
    target = tvm.target.Target(to_target(from_target("llvm -mcpu=x86-64-v4")))
    counts = []
    for chosen in (code_target(target), target):
        library = tirx.build(tvm.IRModule({"tile": tile}), chosen)
        counts.append(library.inspect_source("ll").count("<16 x float> %"))
    assert counts[0] < counts[1] / 2
    assert "not an LLVM option" not in "".join(capfd.readouterr())


def built(own_addresses: bool) -> Executable:
    """``max(x + x, 0)`` of two kernels; the first one may be said to keep its addresses."""
    mod = lower([spec("x", "float32", 8)], lambda x: relax.op.nn.relu(relax.op.add(x, x)))
    kernels = [var for var, func in mod.functions_items() if isinstance(func, tirx.PrimFunc)]
    if own_addresses:
        mod[kernels[0]] = mod[kernels[0]].with_attr(OWN_ADDRESSES, True)
    return build_module(mod, tvm.target.Target({"kind": "llvm"}), "{}", silent)


@pytest.mark.parametrize("own_addresses, modules", [(False, 1), (True, 2)])
def test_kernels_that_keep_their_addresses_have_a_module(
    own_addresses: bool, modules: int, tmp_path: Path
) -> None:
    executable = built(own_addresses)
    assert len(list(_llvm(executable.code.mod))) == modules
    path = tmp_path / "model.so"
    link(executable, path)
    machine = relax.VirtualMachine(tvm.runtime.load_module(str(path)), tvm.cpu())
    x = np.arange(-4, 4, dtype="float32")
    result = machine["main"](tvm.runtime.tensor(x)).numpy()
    np.testing.assert_array_equal(result, np.maximum(x + x, 0))


def test_kernels_outside_of_a_network_are_built_alike(tmp_path: Path) -> None:
    target = tvm.target.Target({"kind": "llvm"})
    kernels = {"plain": tile, "own": tile.with_attr(OWN_ADDRESSES, True)}
    library = build_kernels(kernels, target)
    assert len(list(_llvm(library))) == 2
    path = tmp_path / "kernels.so"
    library.export_library(str(path))
    loaded = tvm.runtime.load_module(str(path))
    x, w = (np.random.default_rng(0).random((3, 3, 64, n), "float32") for n in (8, 16))
    for name in kernels:
        y = tvm.runtime.tensor(np.zeros((8, 16), "float32"))
        loaded[name](tvm.runtime.tensor(x), tvm.runtime.tensor(w), y)
        np.testing.assert_allclose(y.numpy(), np.einsum("ijkr,ijkl->rl", x, w), rtol=1e-5)


def test_the_target_of_a_gpu_stays() -> None:
    arch = from_target("cuda -arch=sm_90a")
    assert isinstance(arch, CudaArch)
    target = tvm.target.Target(to_target(arch))
    assert code_target(target).same_as(target)
