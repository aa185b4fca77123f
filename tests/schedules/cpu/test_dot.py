"""Products of bytes against NumPy: exactly equal, on every instruction set."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tvm import relax, te

from tests.schedules.cpu.kernels import ARCH, built, check, composed
from tests.schedules.cpu.products import compare, convolve, schedule
from tvmext.arch import FAMILIES, CpuArch
from tvmext.schedules.cpu.dots import find_dot

few = settings(max_examples=10, deadline=None)
sizes = st.sampled_from([0, 1, 2, 5, 13, 16, 31, 48, 67])
kinds = st.sampled_from(["uint8", "int8"])


def drawn(dtype: str, *shape: int, seed: int = 0) -> np.ndarray:
    """Bytes of the whole range, the extremes among them."""
    limits = np.iinfo(dtype)
    rng = np.random.default_rng([seed, *shape])
    return rng.integers(limits.min, limits.max, shape, dtype, endpoint=True)


def matmul(x: relax.Expr, w: relax.Expr) -> relax.Expr:
    return relax.op.matmul(x, w, out_dtype="int32")


def exact(x: np.ndarray, w: np.ndarray) -> np.ndarray:
    return x.astype("int64") @ w.astype("int64")


@few
@example(1, 1, 16, False, "uint8", "int8")
@example(1, 1, 67, True, "uint8", "int8")
@example(1, 2, 2, False, "uint8", "int8")
@given(sizes, sizes, sizes, st.booleans(), kinds, kinds)
def test_static_sizes(m: int, n: int, k: int, weight: bool, left: str, right: str) -> None:
    x, w = drawn(left, m, k), drawn(right, k, n)
    compare(matmul, [x, w], exact(x, w), weights=[1] if weight else [], tolerance=0)


def test_instructions() -> None:
    vnni = replace(FAMILIES["x86-64-v4"], features=frozenset({"avx512vnni"}))
    arm = replace(FAMILIES["NEON"], features=frozenset({"dotprod"}))

    def found(left: str, right: str, arch: CpuArch) -> str:
        dot = find_dot((left, right), arch)
        return dot.intrinsic.rpartition(".")[0] if dot else ""

    assert found("uint8", "int8", vnni) == found("int8", "int8", vnni) == "llvm.x86.avx512.vpdpbusd"
    assert found("uint8", "uint8", vnni) == "llvm.x86.avx512.pmaddw.d"
    assert found("uint8", "int8", FAMILIES["x86-64-v3"]) == "llvm.x86.avx2.pmadd"
    assert found("uint8", "int8", FAMILIES["x86-64"]) == "llvm.x86.sse2.pmadd"
    assert "sdot" in found("int8", "int8", arm)
    assert "udot" in found("uint8", "uint8", arm)
    assert found("int8", "int8", FAMILIES["NEON"]) == ""
    assert found("float32", "float32", vnni) == found("int16", "int8", vnni) == ""


@few
@given(sizes, sizes, sizes, st.booleans(), kinds, kinds)
def test_symbolic_rows(m: int, n: int, k: int, narrow: bool, left: str, right: str) -> None:
    x, w = drawn(left, m, k), drawn(right, k, n)
    arch = replace(FAMILIES["x86-64-v3"], cores=1) if narrow else ARCH
    compare(
        matmul, [x, w], exact(x, w), weights=[1], dims=[("m", k), (k, n)], arch=arch, tolerance=0
    )


@pytest.mark.parametrize("name", ["x86-64", "x86-64-v3", "x86-64-v4", "NEON"])
def test_every_instruction_set(name: str) -> None:
    """Runs where it can; what cannot run here is built."""
    arch = FAMILIES[name]
    build = lambda x, w: relax.op.add(matmul(x, w), relax.const(7))  # noqa: E731
    x, w = drawn("int8", 6, 35), drawn("int8", 35, 40)
    if arch.isa == ARCH.isa and arch.vector_bits <= ARCH.vector_bits:
        compare(build, [x, w], exact(x, w) + 7, weights=[1], arch=arch, tolerance=0)
        return
    if arch.isa != "x86_64":
        arch = replace(arch, features=frozenset({"dotprod"}))
    _, result, selection = schedule(
        build, ((6, 35), "int8"), ((35, 40), "int8"), weights=[1], arch=arch
    )
    assert selection.decision.dot is not None
    if arch.isa != "x86_64":
        assert "sdot" in selection.decision.dot.intrinsic and result.layouts[1].shape[-1] == 4
    elif ARCH.isa == "x86_64":
        built(result.func, arch)


@few
@example(0, 3, 1, "uint8")
@given(sizes, st.sampled_from([1, 3, 12]), sizes, kinds)
def test_batches_of_two_inputs_transposed(m: int, b: int, k: int, right: str) -> None:
    x, w = drawn("uint8", b, m, k), drawn(right, b, 9, k)
    expected = x.astype("int64") @ w.astype("int64").swapaxes(1, 2)
    check(transposed, [x, w], expected, how=composed, tolerance=0)
    dims = [(b, "m", "k"), (b, 9, "k")]
    check(transposed, [x, w], expected, how=composed, dims=dims, tolerance=0)


def transposed(x: te.Tensor, w: te.Tensor) -> te.Tensor:
    """x @ w^T in batches."""
    k = te.reduce_axis((0, x.shape[2]), "k")
    return te.compute(
        (x.shape[0], x.shape[1], w.shape[1]),
        lambda b, i, j: te.sum(x[b, i, k].astype("int32") * w[b, j, k].astype("int32"), k),
    )


def test_requantized_in_the_epilogue() -> None:
    """One kernel from bytes to bytes: scale per column, halves to even, saturated."""
    scale = np.linspace(1e-4, 2e-3, 70, dtype="float32")

    def build(x: relax.Expr, w: relax.Expr, scale: relax.Expr) -> relax.Expr:
        real = relax.op.multiply(relax.op.astype(matmul(x, w), "float32"), scale)
        moved = relax.op.add(relax.op.round(real), relax.const(128.0))
        return relax.op.astype(relax.op.clip(moved, 0, 255), "uint8")

    x, w = drawn("uint8", 33, 50), drawn("int8", 50, 70)
    expected = np.clip(np.rint(exact(x, w).astype("float32") * scale) + 128, 0, 255)
    assert {0, 255} < set(expected.flat)
    selection = compare(build, [x, w, scale], expected, weights=[1], rule="gemm", tolerance=0)
    assert selection.decision.dot == find_dot(("uint8", "int8"), ARCH)


@pytest.mark.parametrize("channels", [3, 16, 18])
@pytest.mark.parametrize("kind", ["uint8", "int8"])
def test_windows(channels: int, kind: str) -> None:
    """A convolution, its padding staged, on two kinds of machine."""

    def build(x: relax.Expr, w: relax.Expr) -> relax.Expr:
        return relax.op.nn.conv2d(
            x,
            w,
            strides=2,
            padding=1,
            data_layout="NHWC",
            kernel_layout="OHWI",
            out_dtype="int32",
        )

    x, w = drawn(kind, 2, 9, 11, channels), drawn("int8", 35, 3, 3, channels)
    expected = convolve(x, w, stride=2, pad=1)
    for arch in (ARCH, replace(FAMILIES["x86-64-v3"], cores=1)):
        selection = compare(
            build, [x, w], expected, weights=[1], rule="conv", arch=arch, tolerance=0
        )
        assert selection.decision.dot is not None
    dims = [("n", "h", "w", channels), w.shape]
    compare(build, [x, w], expected, weights=[1], rule="conv", dims=dims, tolerance=0)
