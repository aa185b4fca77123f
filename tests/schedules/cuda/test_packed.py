"""Products by weights of a few bits in blocks, which stay packed in memory."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper

from tests.passes.test_block_products import product as block_product
from tests.schedules.cpu.kernels import normal
from tests.schedules.packed import product, weight
from tvmext.schedules.cuda import rules
from tvmext.schedules.select import select

from . import networks
from .kernels import ARCH, machine_code, runs, scheduled

TOLERANCE = {"float32": 1e-5, "float16": 1e-2}


def check(
    one: tuple[Any, np.ndarray],
    rows: int | str,
    rule: str,
    dtype: str = "float32",
    sizes: tuple[int, ...] = (1,),
    orders: tuple[int, ...] = (7,),
    tf32: bool = False,
) -> None:
    packed, real = one
    result, selection = select(product(packed, rows, dtype), ARCH, rules(ARCH, tf32=tf32))
    assert selection.rule == rule, selection
    assert not result.layouts
    inputs, expected = [], []
    for size in sizes if rows == "n" else (rows,):
        x = normal(2, size, len(real)).astype(dtype)
        arrays = {f"x{i}": array for i, array in enumerate((x, *packed.arrays))}
        inputs += [(arrays, order) for order in orders]
        exact = x.astype("float64") @ real * 2 + x[:, :, :1]
        expected += [exact] * len(orders)
    bound = 1e-2 if tf32 else TOLERANCE[dtype]
    for (y,), exact in zip(runs(result.func, inputs), expected):
        np.testing.assert_allclose(y, exact, rtol=bound, atol=bound * np.abs(exact).max(initial=1))


@pytest.mark.parametrize(
    ("bits", "columns", "block", "dtype"),
    [
        (4, 72, 32, "float16"),
        (4, 70, 64, "float32"),
        (2, 37, 16, "float32"),
        (8, 40, 32, "float16"),
        (8, 12, 64, "float32"),
    ],
)
def test_a_row_or_two(bits: int, columns: int, block: int, dtype: str) -> None:
    check(weight(bits, 256, columns, block), 1, "gemv", dtype, orders=(0, 7))


@pytest.mark.parametrize("zero", [8.0, 0.0])
def test_one_zero_point(zero: float) -> None:
    packed, _ = weight(4, 128, 40)
    bits = packed.words[:, None] >> np.arange(0, 32, 4, dtype=np.uint32)[:, None] & 15
    scale = np.repeat(packed.scale, 32, 0)
    real = (bits.reshape(128, 40).astype("float32") - zero) * scale
    check((replace(packed, zero=zero), real), 1, "gemv", "float16")


@pytest.mark.parametrize(
    ("bits", "rows", "sizes", "dtype"),
    [(4, 20, (), "float16"), (8, "n", (1, 40), "float16"), (2, 9, (), "float16")],
)
def test_many_rows(bits: int, rows: int | str, sizes: tuple[int, ...], dtype: str) -> None:
    check(weight(bits, 128, 72), rows, "mma", dtype, sizes, (0, 7))


def test_many_rows_in_float32() -> None:
    check(weight(4, 64, 40), 9, "mma", tf32=True)
    check(weight(4, 64, 40), 9, "contract")


def test_machine_code_of_a_row() -> None:
    made = product(weight(4, 4096, 4096)[0], 1, "float16")
    function, selection = scheduled(made)
    assert selection.rule == "gemv"
    words = machine_code(function)
    assert any(word.startswith("LDG.E.128") for word in words), words


def test_machine_code_of_many_rows() -> None:
    """A word is read once for the run that it holds, neighbouring threads read neighbours."""
    made = product(weight(4, 1024, 1024)[0], 64, "float16")
    function, selection = scheduled(made)
    assert selection.rule == "mma"
    words = machine_code(function)
    assert any(word.startswith("HMMA") for word in words), words
    assert any(word.startswith("STS.128") for word in words), words


@pytest.mark.parametrize("rows", [1, 9])
def test_network_in_halves(rows: int, tmp_path: Path) -> None:
    """MatMulNBits of float16, its last block not whole."""
    model = block_product(rows, 72, 40, 32, 4, "many")
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.elem_type = TensorProto.FLOAT16
    scale = model.graph.initializer[1]
    halves = numpy_helper.to_array(scale).astype("float16")
    scale.CopyFrom(numpy_helper.from_array(halves, scale.name))
    onnx.save(model, tmp_path / "m.onnx")
    x = normal(1, rows, 72).astype("float16")
    (y,) = networks.run(tmp_path / "m.onnx", {"x": x}).values()
    words, _, zeros = map(numpy_helper.to_array, model.graph.initializer)
    bits = (words[..., None] >> np.array([0, 4]) & 15).reshape(40, 3, 32)
    zero = (zeros[..., None] >> np.array([0, 4]) & 15).reshape(40, -1)[:, :3, None]
    real = ((bits - zero) * halves.astype("float64").reshape(40, 3, 1)).reshape(40, 96)[:, :72]
    assert y.dtype == np.float16
    np.testing.assert_allclose(y, x.astype("float64") @ real.T, rtol=5e-3, atol=5e-3)
