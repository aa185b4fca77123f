"""Two arrays compared: how far apart, where, and whether that is within the tolerance.

An element passes if both are NaN, if both are the same infinity, or if

    |got - expected| <= atol + rtol * |expected|

Unless the caller gives it, `atol` is in proportion to the output (`scale`): the rounding error of a
sum grows with its terms, not with what they come to. Outputs of the order 1e-4 are held to a
stricter tolerance than a fixed one would be, outputs of the order 1e5 to one that can be met. Of
quantized ones it is two steps at least (steps.py).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import ml_dtypes  # noqa: F401  gives NumPy the dtypes bfloat16 and float8
import numpy as np

from tvmext.errors import OptionError

_CHUNK = 1 << 22  # elements compared at once, so that a comparison needs little memory


@dataclass(frozen=True)
class Tolerance:
    """Relative and absolute; both 0 means equal bit by bit, up to the sign of zero."""

    rtol: float
    atol: float


EXACT = Tolerance(0.0, 0.0)

# By dtype of the output; atol for outputs of scale 1. float32: what summing in another order costs
# over a hundred layers, as in TVM's and ONNX Runtime's own model tests; the others in proportion to
# their rounding error (2^-11 for float16, 2^-8 for bfloat16, 2^-4 and 2^-3 for the 8-bit floats).
TOLERANCES: Mapping[str, Tolerance] = {
    "float64": Tolerance(1e-6, 1e-8),
    "complex128": Tolerance(1e-6, 1e-8),
    "float32": Tolerance(1e-3, 1e-4),
    "complex64": Tolerance(1e-3, 1e-4),
    "float16": Tolerance(1e-2, 1e-2),
    "bfloat16": Tolerance(4e-2, 4e-2),
    "float8_e4m3fn": Tolerance(0.13, 0.13),
    "float8_e5m2": Tolerance(0.26, 0.26),
}
"""Integers, booleans and dtypes that are not listed must be equal."""

Override = float | Mapping[str, float] | None
"""A tolerance for every output, or by name of the output."""

Tolerances = Callable[[str, np.ndarray], Tolerance]
"""tolerances(name, expected): that of a value."""


@dataclass(frozen=True)
class Comparison:
    """One array against its reference.

    `failed` of `total` elements are outside the tolerance, those with a NaN or an infinity on one
    side included; `nan_mismatches` and `inf_mismatches` count these. `max_abs` and `max_rel` are
    over the elements that are finite on both sides, `max_rel` where the expected one is not 0.
    `where` is the worst element, None if all are equal. `problem` says why nothing was compared:
    dtypes or shapes differ.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    tolerance: Tolerance
    failed: int = 0
    max_abs: float = 0.0
    max_rel: float = 0.0
    where: tuple[int, ...] | None = None
    got: float | None = None
    expected: float | None = None
    nan_mismatches: int = 0
    inf_mismatches: int = 0
    problem: str = ""

    @property
    def passed(self) -> bool:
        return not self.failed and not self.problem

    @property
    def total(self) -> int:
        return int(np.prod(self.shape, dtype=np.int64))


def tolerance_of(
    name: str,
    expected: np.ndarray,
    rtol: Override = None,
    atol: Override = None,
    least: float = 0.0,
) -> Tolerance:
    """The tolerance of one output: the caller's where given, else that of its dtype and scale.

    The absolute one of the latter is `least` at least.
    """
    default = TOLERANCES.get(str(expected.dtype), EXACT)
    absolute = max(default.atol * scale(expected) if default.atol else 0.0, least)
    return Tolerance(_pick(rtol, name, default.rtol), _pick(atol, name, absolute))


def scale(expected: np.ndarray) -> float:
    """The root mean square of the finite elements, at least 1e-3 so that zeros have a tolerance."""
    flat, total, count = expected.reshape(-1), 0.0, 0
    wide = np.complex128 if expected.dtype.kind == "c" else np.float64
    for start in range(0, flat.size, _CHUNK):
        chunk = np.abs(flat[start : start + _CHUNK].astype(wide))
        finite = chunk[np.isfinite(chunk)]
        total, count = total + float(np.dot(finite, finite)), count + finite.size
    return max((total / max(count, 1)) ** 0.5, 1e-3)


def compare(name: str, got: np.ndarray, expected: np.ndarray, tolerance: Tolerance) -> Comparison:
    """Compare an output, element by element, with what it should be."""
    dtype, shape = str(expected.dtype), expected.shape
    if got.dtype != expected.dtype or got.shape != expected.shape:
        problem = f"got {_kind(got)}, expected {_kind(expected)}"
        return Comparison(name, dtype, shape, tolerance, problem=problem)
    tally = _Tally(tolerance)
    got, expected = got.reshape(-1), expected.reshape(-1)
    for start in range(0, expected.size, _CHUNK):
        tally.add(got[start : start + _CHUNK], expected[start : start + _CHUNK], start)
    where = None
    if tally.worst >= 0:
        where = tuple(int(i) for i in np.unravel_index(tally.worst, shape))
    return Comparison(
        name,
        dtype,
        shape,
        tolerance,
        failed=tally.failed,
        max_abs=tally.max_abs,
        max_rel=tally.max_rel,
        where=where,
        got=_number(got, tally.worst),
        expected=_number(expected, tally.worst),
        nan_mismatches=tally.nan_mismatches,
        inf_mismatches=tally.inf_mismatches,
    )


class _Tally:
    """The figures of a comparison, gathered chunk by chunk."""

    def __init__(self, tolerance: Tolerance) -> None:
        self.tolerance = tolerance
        self.failed = self.nan_mismatches = self.inf_mismatches = 0
        self.max_abs = self.max_rel = 0.0
        self.worst = -1
        self._excess = 0.0

    def add(self, got: np.ndarray, expected: np.ndarray, start: int) -> None:
        """Take in elements start, start + 1, ... of the flattened arrays."""
        differs = got != expected  # also true for two NaNs
        if not differs.any():
            return
        kind = expected.dtype.kind
        wide = np.complex128 if kind == "c" else np.float64
        index = np.flatnonzero(differs)
        got, expected = got[index].astype(wide), expected[index].astype(wide)
        nan = np.isnan(got) != np.isnan(expected)
        finite = np.isfinite(got) & np.isfinite(expected)
        inf = ~finite & ~np.isnan(got) & ~np.isnan(expected)
        with np.errstate(all="ignore"):
            error = np.where(finite, np.abs(got - expected), np.where(nan | inf, np.inf, 0.0))
            allowed = self.tolerance.atol + self.tolerance.rtol * np.abs(expected)
            if kind in "iu":
                error = np.maximum(error, 1)  # float64 rounds large integers
            excess = np.where(finite, error / allowed, error)
            relative = error[expected != 0] / np.abs(expected[expected != 0])
        self.nan_mismatches += int(nan.sum())
        self.inf_mismatches += int(inf.sum())
        self.failed += int((excess > 1).sum())
        self.max_abs = max(self.max_abs, float(error[finite].max(initial=0.0)))
        self.max_rel = max(self.max_rel, float(relative[np.isfinite(relative)].max(initial=0.0)))
        if excess.max() > self._excess:
            self._excess = float(excess.max())
            self.worst = start + int(index[excess.argmax()])


def _pick(override: Override, name: str, default: float) -> float:
    value = override.get(name, default) if isinstance(override, Mapping) else override
    value = default if value is None else value
    if not 0 <= value < float("inf"):
        raise OptionError(f"the tolerance of '{name}' is {value}", hint="a number from 0 up")
    return value


def _kind(array: np.ndarray) -> str:
    return f"{array.dtype}[{', '.join(map(str, array.shape))}]"


def _number(flat: np.ndarray, index: int) -> float | None:
    if index < 0:
        return None
    value = flat[index]
    return float(abs(value) if flat.dtype.kind == "c" else value)
