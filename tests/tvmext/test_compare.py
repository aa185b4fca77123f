"""Comparisons: which elements fail, which is the worst, and what a report says of it."""

from __future__ import annotations

import json
from typing import Any

import ml_dtypes  # noqa: F401  gives NumPy the dtype bfloat16
import numpy as np
import pytest

from tvmext import verification
from tvmext.verification import compare as comparing
from tvmext.verification.compare import EXACT, Tolerance, compare, scale, tolerance_of


def compared(got: Any, expected: Any, rtol: float = 0, atol: float = 0, dtype: str = "float32"):
    return compare("y", np.array(got, dtype), np.array(expected, dtype), Tolerance(rtol, atol))


def test_the_worst_element_is_the_one_furthest_outside_the_tolerance() -> None:
    result = compared([[1, 2.5], [100.5, 4]], [[1, 2], [100, 4]], rtol=0.01)
    assert (result.failed, result.where) == (1, (0, 1))
    assert (result.got, result.expected) == (2.5, 2.0)
    assert result.max_abs == 0.5
    assert result.max_rel == 0.25


def test_the_tolerance_is_relative_plus_absolute() -> None:
    assert compared([10.5], [10], rtol=0.03, atol=0.25).passed
    assert not compared([10.5], [10], rtol=0.02, atol=0.25).passed
    assert compared([10], [10]).where is None


def test_nan_and_infinity() -> None:
    nan, inf = np.nan, np.inf
    expected = [nan, inf, -inf, 1, 2, 3, inf]
    assert compared(expected, expected).passed
    result = compared([nan, inf, -inf, nan, inf, 3, -inf], expected, rtol=1, atol=1)
    assert (result.failed, result.nan_mismatches, result.inf_mismatches) == (3, 1, 2)
    assert result.max_abs == 0
    assert result.where == (3,)


def test_integers_and_booleans_are_exact() -> None:
    assert tolerance_of("y", np.ones(2, "int64")) == tolerance_of("y", np.ones(2, bool)) == EXACT
    big = 2**60
    result = compared([big, big + 1], [big, big], dtype="int64")
    assert (result.failed, result.where) == (1, (1,))
    assert compared([True, False], [True, True], dtype="bool").failed == 1


def test_other_shapes_and_dtypes_are_a_problem() -> None:
    result = compare("y", np.zeros((2, 3), "f4"), np.zeros((3, 2), "f4"), EXACT)
    assert not result.passed
    assert result.problem == "got float32[2, 3], expected float32[3, 2]"
    result = compare("y", np.zeros(2, "f8"), np.zeros(2, "f4"), EXACT)
    assert result.problem == "got float64[2], expected float32[2]"


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64", "complex64", "uint8"])
def test_every_dtype_is_compared(dtype: str) -> None:
    kind = np.dtype(dtype)
    got, expected = np.array([1, 2, 5]).astype(kind), np.array([1, 2, 3]).astype(kind)
    result = compare("y", got, expected, tolerance_of("y", expected))
    assert (result.failed, result.where, result.max_abs) == (1, (2,), 2)


def test_scalars_and_empty_arrays() -> None:
    assert compared(1, 2).where == ()
    assert compared(np.zeros((0, 3)), np.zeros((0, 3))).passed


def test_large_arrays_are_compared_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comparing, "_CHUNK", 4)
    expected = np.arange(23, dtype=np.float32).reshape(23, 1)
    got = expected.copy()
    got[[2, 13, 22]] += [[1], [5], [2]]
    result = compare("y", got, expected, Tolerance(0, 0.5))
    assert (result.failed, result.max_abs, result.where) == (3, 5, (13, 0))


def test_a_report_is_strict_json() -> None:
    report = verification.Report("file", (verification.Case({}, (compared([np.nan, 1], [2, 0]),)),))
    text = json.dumps(report.to_json(), allow_nan=False)
    assert json.loads(text)["cases"][0]["outputs"][0]["got"] == "nan"


@pytest.mark.parametrize("magnitude", [1e-4, 1.0, 1e5])
def test_the_default_tolerance_follows_the_scale_of_the_output(magnitude: float) -> None:
    expected = np.array([1, -1, 2, 1e-6], "float32") * np.float32(magnitude)
    tolerance = tolerance_of("y", expected)
    close, far = expected.copy(), expected.copy()
    close[3] += 5e-5 * max(magnitude, 1e-3)
    far[3] += 5e-4 * max(magnitude, 1e-3)
    assert compare("y", close, expected, tolerance).passed
    assert not compare("y", far, expected, tolerance).passed
    assert tolerance_of("y", expected, atol=0.5).atol == 0.5


def test_zeros_and_what_is_not_finite_have_a_scale() -> None:
    assert scale(np.zeros(3, "float32")) == scale(np.zeros((0, 2), "float32")) == 1e-3
    assert scale(np.array([np.inf, np.nan, 3.0])) == 3.0
