"""Weights in the layout that a kernel wants, laid out with NumPy at compile time."""

from __future__ import annotations

from typing import Any

import numpy as np
from tvm import tirx
from tvm.ir import Expr, Var

from .kernel.analysis import constant
from .rule import Layout, Matrix


def relayout(array: np.ndarray, layout: Layout) -> np.ndarray:
    """`array` with element ``i`` at ``layout.index_map(i)``, zero where no element goes.

    Splits, permutations and reversals of dims, which is what rules ask for, are one padded copy;
    any other map is one indexed assignment with the indices computed by array arithmetic.
    """
    array = _multiplied(array, layout.products)
    return _transposed(array, layout) if _terms(layout) else _scattered(array, layout)


def _multiplied(array: np.ndarray, products: tuple[tuple[int, Matrix], ...]) -> np.ndarray:
    """Every line along each of the dims times its matrix, in float64."""
    result = array.astype("float64") if products else array
    for dim, matrix in products:
        result = np.moveaxis(np.tensordot(np.asarray(matrix), result, (1, dim)), 0, dim)
    return result.astype(array.dtype, copy=False)


def _terms(layout: Layout) -> list[tuple[int, str, int]] | None:
    """Each new index as (old dim, "whole" | "quotient" | "remainder" | "reversed", constant)."""
    dims = {var: dim for dim, var in enumerate(layout.index_map.initial_indices)}
    kinds = {tirx.FloorDiv: "quotient", tirx.FloorMod: "remainder"}
    terms = []
    for expr in layout.index_map.final_indices:
        if isinstance(expr, Var):
            terms.append((dims[expr], "whole", 1))
        elif type(expr) in kinds and isinstance(expr.a, Var) and constant(expr.b) is not None:
            terms.append((dims[expr.a], kinds[type(expr)], int(expr.b.value)))
        elif isinstance(expr, tirx.Sub) and isinstance(expr.b, Var) and constant(expr.a):
            terms.append((dims[expr.b], "reversed", int(expr.a.value)))
        elif constant(expr) == 0:
            terms.append((-1, "whole", 1))
        else:
            return None
    return terms if _is_transposition(terms, len(dims)) else None


def _is_transposition(terms: list[tuple[int, str, int]], rank: int) -> bool:
    """Whether every old dim appears once whole, or once split by one divisor."""
    for dim in range(rank):
        uses = sorted((kind, value) for d, kind, value in terms if d == dim)
        kinds = [kind for kind, _ in uses]
        if kinds not in (["whole"], ["reversed"], ["quotient", "remainder"], []):
            return False
        if len({value for _, value in uses}) > 1:
            return False
    return True


def _transposed(array: np.ndarray, layout: Layout) -> np.ndarray:
    terms = _terms(layout)
    assert terms is not None
    absent = [dim for dim in range(array.ndim) if dim not in {d for d, _, _ in terms}]
    if any(array.shape[dim] != 1 for dim in absent):
        return _scattered(array, layout)
    flips = tuple(dim for dim, kind, _ in terms if kind == "reversed")
    if any(value != array.shape[dim] - 1 for dim, kind, value in terms if kind == "reversed"):
        return _scattered(array, layout)
    source = np.flip(array, flips) if flips else array
    divisors = {dim: value for dim, kind, value in terms if kind == "quotient"}
    padding = [(0, -n % divisors.get(dim, 1)) for dim, n in enumerate(array.shape)]
    if any(after for _, after in padding):
        source = np.pad(source, padding)
    shape: list[int] = []
    position: dict[tuple[int, str], int] = {}
    for dim, n in enumerate(source.shape):
        for kind, extent in _parts(n, divisors.get(dim)):
            position[dim, kind] = len(shape)
            shape.append(extent)
    split = source.reshape(shape)
    order = [
        position[dim, kind if kind != "reversed" else "whole"] for dim, kind, _ in terms if dim >= 0
    ]
    order += [position[dim, "whole"] for dim in absent]
    moved = split.transpose(order)
    return _fitted(np.ascontiguousarray(moved).reshape(_extents(moved, terms)), layout.shape)


def _parts(extent: int, divisor: int | None) -> list[tuple[str, int]]:
    if divisor is None:
        return [("whole", extent)]
    return [("quotient", extent // divisor), ("remainder", divisor)]


def _extents(moved: np.ndarray, terms: list[tuple[int, str, int]]) -> list[int]:
    """The shape with a unit dim where the new index is the constant 0."""
    extents = iter(moved.shape)
    return [next(extents) if dim >= 0 else 1 for dim, _, _ in terms]


def _fitted(array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """`array` padded with zeros at the end of each dim."""
    if array.shape == shape:
        return array
    result = np.zeros(shape, array.dtype)
    result[tuple(slice(0, n) for n in array.shape)] = array
    return result


def _scattered(array: np.ndarray, layout: Layout) -> np.ndarray:
    mesh = np.ogrid[tuple(slice(0, n) for n in array.shape)]
    values = dict(zip(layout.index_map.initial_indices, mesh))
    target = tuple(_evaluate(expr, values) for expr in layout.index_map.final_indices)
    result = np.zeros(layout.shape, array.dtype)
    result[target] = array
    return result


_ARITHMETIC = {
    tirx.Add: np.add,
    tirx.Sub: np.subtract,
    tirx.Mul: np.multiply,
    tirx.FloorDiv: np.floor_divide,
    tirx.FloorMod: np.mod,
}


def _evaluate(expr: Expr, values: dict[Var, Any]) -> Any:
    """An index expression over arrays of indices."""
    if isinstance(expr, Var):
        return values[expr]
    number = constant(expr)
    if number is not None:
        return np.int64(number)
    operation = _ARITHMETIC[type(expr)]
    return operation(_evaluate(expr.a, values), _evaluate(expr.b, values))
