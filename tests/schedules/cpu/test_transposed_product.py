"""Transposed convolutions with kernels as wide as their strides: one product, interleaved."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from typing import Any

import numpy as np
import pytest
import tvm
from tvm import relax, te, tirx
from tvm.relax import op, transform

from tests.passes.modules import build
from tests.schedules.cpu.kernels import ARCH, composed, normal, run
from tvmext.arch import to_target
from tvmext.passes.legalize import LEGALIZE
from tvmext.passes.transposed_convolution import AS_PRODUCTS
from tvmext.schedules.cpu import RULES
from tvmext.schedules.layout import relayout
from tvmext.schedules.rule import OWN_ADDRESSES
from tvmext.schedules.schedule import ScheduleKernels
from tvmext.schedules.select import select

CALLS = {1: op.nn.conv1d_transpose, 2: op.nn.conv2d_transpose, 3: op.nn.conv3d_transpose}
LAYOUTS = {1: ("NWC", "IWO"), 2: ("NHWC", "IHWO"), 3: ("NDHWC", "IDHWO")}


@dataclass(frozen=True)
class Case:
    """``y[n, Y.., o] = silu(sum_i x[n, y.., i] w[i, a.., o] + b[o])`` with ``Y = s y + a``."""

    strides: tuple[int, ...]
    cin: int
    cout: int
    dtype: str = "float32"
    constant: bool = True
    cores: int = 1
    first: bool = False
    """Whether channels come first."""

    @property
    def layouts(self) -> tuple[str, str]:
        data, weight = LAYOUTS[len(self.strides)]
        return ("N" + "C" + data[1:-1], "IO" + weight[1:-1]) if self.first else (data, weight)

    def module(self, sizes: tuple[Any, ...], arrays: list[np.ndarray]) -> tvm.IRModule:
        """The fused kernel; `arrays` are weight and bias."""
        data, weight = self.layouts
        call = CALLS[len(self.strides)]
        kernel, bias = arrays
        shape = (sizes[0], self.cin, *sizes[1:]) if self.first else (*sizes, self.cin)
        dims = [tirx.Var(d, "int64") if isinstance(d, str) else d for d in shape]

        def body(_: Any, x: relax.Expr, *rest: relax.Expr) -> relax.Expr:
            w = rest[0] if rest else relax.const(kernel, self.dtype)
            made = call(x, w, strides=self.strides, data_layout=data, kernel_layout=weight)
            return op.nn.silu(op.add(made, relax.const(bias, self.dtype)))

        rest = [] if self.constant else [("w", kernel.shape, self.dtype)]
        mod = build([("x", dims, self.dtype), *rest], body)
        return fused(mod)

    def weights(self) -> list[np.ndarray]:
        values = np.random.default_rng(1)
        shape: tuple[int, ...] = (self.cin, *self.strides, self.cout)
        bias: tuple[int, ...] = (self.cout,)
        if self.first:
            shape, bias = (
                (self.cin, self.cout, *self.strides),
                (self.cout, *[1] * len(self.strides)),
            )
        return [values.standard_normal(s).astype(self.dtype) for s in (shape, bias)]

    def expected(self, x: np.ndarray, kernel: np.ndarray, bias: np.ndarray) -> np.ndarray:
        """By its definition, one tap after another."""
        if self.first:
            last = (*range(2, x.ndim), 1)
            x, kernel = x.transpose(0, *last), kernel.transpose(0, *last)
        shape = (x.shape[0], *(n * s for n, s in zip(x.shape[1:], self.strides)), self.cout)
        out = np.zeros(shape, x.dtype)
        for tap in product(*map(range, self.strides)):
            at = tuple(slice(a, None, s) for a, s in zip(tap, self.strides))
            out[(slice(None), *at)] = x @ kernel[(slice(None), *tap)]
        out += bias.reshape(-1)
        out = out / (1 + np.exp(-out))
        return np.moveaxis(out, -1, 1) if self.first else out


def fused(mod: tvm.IRModule) -> tvm.IRModule:
    for step in (
        transform.LegalizeOps(LEGALIZE | AS_PRODUCTS),
        transform.AnnotateTIROpPattern(),
        transform.FuseOps(),
        transform.FuseTIR(),
    ):
        mod = step(mod)
    return mod


def machine(mod: tvm.IRModule, cores: int, rules: tuple[str, ...] = ("gemm",)) -> Any:
    """The scheduled module's function; all of it is one kernel of one of `rules`."""
    schedule = ScheduleKernels(replace(ARCH, cores=cores), RULES)
    executable = tvm.compile(schedule(mod), tvm.target.Target(to_target(ARCH)))
    (selection,) = schedule.selections
    assert selection.rule in rules, selection
    return relax.VirtualMachine(executable, tvm.cpu())["main"]


def check(main: Any, case: Case, sizes: tuple[int, ...]) -> None:
    kernel, bias = case.weights()
    shape = (sizes[0], case.cin, *sizes[1:]) if case.first else (*sizes, case.cin)
    x = np.random.default_rng(0).standard_normal(shape).astype(case.dtype)
    arrays = [x] if case.constant else [x, kernel]
    actual = main(*map(tvm.runtime.tensor, arrays)).numpy()
    np.testing.assert_allclose(actual, case.expected(x, kernel, bias), rtol=1e-4, atol=1e-4)


CASES = {
    "2x2": (Case((2, 2), 8, 24), (1, 5, 6)),
    "4x4": (Case((4, 4), 8, 16), (2, 3, 3)),
    "of different strides": (Case((3, 2), 8, 16), (1, 4, 5)),
    "along one axis": (Case((1, 2), 8, 16), (1, 4, 5)),
    "1d": (Case((2,), 8, 16), (2, 9)),
    "3d": (Case((2, 2, 2), 8, 16), (1, 3, 4, 5)),
    "few channels": (Case((2, 2), 5, 3), (1, 6, 7)),
    "one pixel": (Case((2, 2), 40, 33), (1, 1, 1)),
    "float64": (Case((2, 2), 8, 12, "float64"), (1, 5, 6)),
    "a weight known at run time only": (Case((2, 2), 8, 24, constant=False), (1, 5, 6)),
    "cores": (Case((2, 2), 64, 64, cores=2), (1, 16, 16)),
}


@pytest.mark.parametrize("name", CASES)
def test_is_one_product(name: str) -> None:
    case, sizes = CASES[name]
    check(machine(case.module(sizes, case.weights()), case.cores), case, sizes)


@pytest.mark.parametrize("case", [Case((2, 2), 40, 24), Case((4, 4), 9, 5, cores=2)])
def test_free_sizes(case: Case) -> None:
    main = machine(case.module(("n", "h", "w"), case.weights()), case.cores)
    for sizes in ((1, 1, 1), (2, 2, 3), (3, 5, 1), (1, 3, 17), (5, 17, 2), (0, 2, 3), (1, 0, 5)):
        check(main, case, sizes)


@pytest.mark.parametrize("strides", [(2,), (2, 2), (2, 2, 2)])
@pytest.mark.parametrize("free", [False, True])
def test_channels_first(strides: tuple[int, ...], free: bool) -> None:
    case = Case(strides, 8, 20, first=True)
    sizes = (2, 5, 3, 4)[: len(strides) + 1]
    dims = ("n", "h", "w", "d")[: len(sizes)] if free else sizes
    main = machine(case.module(dims, case.weights()), 1, ("gemm", "conv"))
    check(main, case, sizes)


def test_what_is_no_product_is_in_phases() -> None:
    """Cropped, wider or narrower than the stride, shifted by its dilation, in groups."""
    attrs: list[tuple[int, dict[str, Any]]] = [
        (2, {"strides": 2, "padding": 1}),
        (3, {"strides": 2, "padding": 1}),
        (2, {"strides": 3}),
        (2, {"strides": 2, "output_padding": 1}),
        (2, {"strides": 2, "dilation": 3}),
        (2, {"strides": 2, "groups": 2}),
    ]
    for width, more in attrs:
        w = np.ones((8, width, width, 16), "float32")

        def body(_: Any, x: relax.Expr, w: Any = w, more: Any = more) -> relax.Expr:
            data, weight = LAYOUTS[2]
            return op.nn.conv2d_transpose(
                x, relax.const(w), data_layout=data, kernel_layout=weight, **more
            )

        schedule = ScheduleKernels(ARCH, RULES)
        schedule(fused(build([("x", (1, 5, 6, 8), "float32")], body)))
        assert [one.rule for one in schedule.selections] == ["phases"], more


def upsampled(x: te.Tensor, w: te.Tensor, *, turned: bool = False) -> te.Tensor:
    """2x2 stride 2 over x[n, c, h, w], the result in NHWC, or in NCHW if `turned`."""
    n, _, h, wide = x.shape
    k = te.reduce_axis((0, w.shape[0]), "k")
    sums = te.compute(
        (2, 2, n, h, wide, w.shape[3]),
        lambda a, b, i, y, x0, o: te.sum(x[i, k, y, x0] * w[k, a, b, o], k),
    )

    def at(i: Any, y: Any, x0: Any, o: Any) -> Any:
        return sums[y % 2, x0 % 2, i, y // 2, x0 // 2, o]

    if turned:
        return te.compute((n, w.shape[3], h * 2, wide * 2), lambda i, o, y, x0: at(i, y, x0, o))
    return te.compute((n, h * 2, wide * 2, w.shape[3]), at)


def compared(
    sizes: tuple[int, ...], free: bool, turned: bool, cores: int = 1, cin: int = 16
) -> tuple[Any, Any]:
    """The kernel of `upsampled` and its selection; the result is as it should be."""
    w = normal(cin, 2, 2, 48, seed=1)
    x = normal(sizes[0], cin, *sizes[1:])
    shape = ("n", cin, "h", "w") if free else x.shape
    made = composed(partial(upsampled, turned=turned), (shape, "float32"), (w.shape, "float32"))
    made = replace(made, constant_args=frozenset([1]))
    result, selection = select(made, replace(ARCH, cores=cores), RULES)
    weight = relayout(w, result.layouts[1])
    (actual,) = run(result.func, {"x0": x, "x1": weight})
    expected = np.einsum("nchw,cabo->nhawbo", x, w)
    expected = expected.reshape(sizes[0], sizes[1] * 2, sizes[2] * 2, 48)
    expected = expected.transpose(0, 3, 1, 2) if turned else expected
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-4)
    return result.func, selection


@pytest.mark.parametrize("free", [False, True])
def test_steps_over_a_picture_of_free_sizes_are_left_to_llvm(free: bool) -> None:
    function, selection = compared((2, 5, 6), free, turned=False)
    assert selection.rule == "gemm"
    assert (OWN_ADDRESSES in function.attrs) == (not free)


@pytest.mark.parametrize("free", [False, True])
@pytest.mark.parametrize("sizes", [(1, 8, 8), (2, 3, 5), (1, 1, 17)])
@pytest.mark.parametrize("cores", [1, 2])
def test_lines_are_whole_before_they_are_turned(
    sizes: tuple[int, ...], free: bool, cores: int
) -> None:
    _, selection = compared(sizes, free, turned=True, cores=cores)
    if free or sizes == (1, 8, 8):
        assert [plan.mode for plan in selection.decision.turned] == ["transpose"]


def test_deep_sums_over_lines_of_free_length_are_not_turned() -> None:
    rules = [compared((1, 3, 5), free, turned=True, cin=128)[1].rule for free in (False, True)]
    assert rules == ["conv", "gemm"]
