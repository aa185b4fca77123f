"""Arithmetic on one known element of a tensor, exact or not at all.

An element is a bool, an int or `Expr` (also in a float tensor, where it stands for an integral
float), a float, a `Ratio` (only in float tensors), or None: not known before the run. Every method
maps None to None. Constants are computed in the dtype; nothing else is rounded: a result that
integers and ratios cannot express, or the dtype cannot hold, is None.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeGuard

import numpy as np

from ..dims import Expr, floordiv, maximum, minimum
from ..expr import terms_of
from ..expr_atoms import cancel
from .symbolic_facts import Facts

MAX_COEFFICIENT = 1 << 12
"""Of a ratio. Products with sizes up to 4096 are then exact in single precision too, and floor is
what a runtime computes; 0.7, which is 11744051 / 2**24 there, makes the result unknown."""


@dataclass(frozen=True)
class Ratio:
    """num / den, not an integer for every size; den > 0."""

    num: int | Expr
    den: int | Expr


Number = bool | int | float | Expr | Ratio | None


@dataclass(frozen=True)
class Arithmetic:
    """The arithmetic of one dtype, with what is known about the dims."""

    dtype: str
    facts: Facts
    where: str

    @property
    def integral(self) -> bool:
        return np.dtype(self.dtype).kind in "iub"

    def add(self, a: Number, b: Number) -> Number:
        return self._rational(a, b, np.add, lambda n, d, m, e: (n * e + m * d, d * e))

    def sub(self, a: Number, b: Number) -> Number:
        return self._rational(a, b, np.subtract, lambda n, d, m, e: (n * e - m * d, d * e))

    def mul(self, a: Number, b: Number) -> Number:
        return self._rational(a, b, np.multiply, lambda n, d, m, e: (n * m, d * e))

    def div(self, a: Number, b: Number) -> Number:
        """Rounded towards zero for integers, as ONNX says; exact for floats."""
        if b is None or b == 0:
            return None
        if self.integral:
            return None if a is None else self._truncated(_size(a), _size(b))
        if self._sign(b) is not True:
            return None
        return self._rational(a, b, np.divide, lambda n, d, m, e: (n * e, d * m))

    def mod(self, a: Number, b: Number, fmod: bool) -> Number:
        """The sign of the divisor; with `fmod`, of the dividend."""
        if a is None or b is None or b == 0 or not self.integral or self._sign(b) is not True:
            return None
        if fmod and self._sign(a) is not True:
            return int(math.fmod(a, b)) if isinstance(a, int) and isinstance(b, int) else None
        return _size(a) % _size(b)

    def pow(self, a: Number, b: Number) -> Number:
        if not isinstance(b, int | float) or b != int(b) or not 0 <= b <= 4:
            return None
        result: Number = 1
        for _ in range(int(b)):
            result = self.mul(result, a)
        return result

    def min(self, a: Number, b: Number) -> Number:
        less = self.less(a, b)
        if less is None and is_size(a) and is_size(b):
            return minimum(a, b)
        return None if less is None else a if less else b

    def max(self, a: Number, b: Number) -> Number:
        less = self.less(a, b)
        if less is None and is_size(a) and is_size(b):
            return maximum(a, b)
        return None if less is None else b if less else a

    def equal(self, a: Number, b: Number) -> bool | None:
        if a is None or b is None:
            return None
        if _is_constant(a) and _is_constant(b):
            return a == b
        gap = self._gap(a, b)
        return None if gap is None else self.facts.equal(gap, 0)

    def less(self, a: Number, b: Number) -> bool | None:
        if a is None or b is None:
            return None
        if _is_constant(a) and _is_constant(b):
            return bool(a < b)  # type: ignore[operator]
        gap = self._gap(a, b)
        below = None if gap is None else self.facts.at_least(gap, 0)
        return None if below is None else not below

    def neg(self, a: Number) -> Number:
        return self.sub(0, a)

    def abs(self, a: Number) -> Number:
        return self.max(a, self.neg(a)) if not isinstance(a, Ratio) else None

    def floor(self, a: Number) -> Number:
        if isinstance(a, float):
            return math.floor(a) if math.isfinite(a) else None
        return floordiv(a.num, a.den) if isinstance(a, Ratio) else a

    def ceil(self, a: Number) -> Number:
        return self.neg(self.floor(self.neg(a)))

    def cast(self, a: Number) -> Number:
        """From any dtype to this one."""
        if a is None:
            return None
        if self.dtype == "bool":
            zero = a == 0 if isinstance(a, float) else self.equal(a, 0)
            return None if zero is None else not zero
        if not self.integral:
            return float(a) if isinstance(a, bool) else self._rounded(a)
        if isinstance(a, Ratio):
            return self._truncated(a.num, a.den)
        if isinstance(a, float):
            return self._held(int(a)) if math.isfinite(a) else None
        return int(a) if isinstance(a, bool) else self._held(a)

    def _held(self, a: int | Expr) -> int | Expr | None:
        """An integer, None where the dtype would wrap it."""
        limits = np.iinfo(self.dtype)
        return a if isinstance(a, Expr) or limits.min <= a <= limits.max else None

    def _rounded(self, a: Number) -> Number:
        return float(np.dtype(self.dtype).type(a)) if isinstance(a, int | float) else a

    def _sign(self, b: Number) -> bool | None:
        """Whether b > 0, or b >= 0 where it is not constant: a network never divides by zero."""
        if _is_constant(b):
            return bool(b > 0)  # type: ignore[operator]
        return self.facts.at_least(b.num if isinstance(b, Ratio) else _size(b), 0)

    def _truncated(self, a: int | Expr, b: int | Expr) -> Number:
        if isinstance(a, int) and isinstance(b, int):
            return abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1)
        if self.facts.at_least(b, 0) is not True:
            return None
        quotient = floordiv(a, b)
        if quotient * b != a:
            if self.facts.at_least(a, 0) is False:
                return -floordiv(-a, b)
            self.facts.assume_at_least(a, 0, self.where)
        return quotient

    def _gap(self, a: Number, b: Number) -> int | Expr | None:
        """A size of the sign of a - b."""
        left, right = _fraction(a), _fraction(b)
        if left is None or right is None:
            return None
        return left[0] * right[1] - right[0] * left[1]

    def _rational(
        self, a: Number, b: Number, constant: np.ufunc, combine: Callable[..., tuple[Any, Any]]
    ) -> Number:
        """The operation in the dtype itself for constants, on fractions otherwise."""
        if a is None or b is None or isinstance(a, bool) or isinstance(b, bool):
            return None
        if not self.integral and _is_constant(a) and _is_constant(b):
            kind = np.dtype(self.dtype).type
            with np.errstate(all="ignore"):
                return float(constant(kind(a), kind(b)))
        left, right = _fraction(a), _fraction(b)
        if left is None or right is None:
            return None
        result = _reduced(*combine(*left, *right))
        return self._held(result) if self.integral and is_size(result) else result


def _is_constant(a: Number) -> bool:
    return isinstance(a, bool | int | float)


def is_size(a: Number) -> TypeGuard[int | Expr]:
    """Whether an element can be a dim."""
    return isinstance(a, int | Expr) and not isinstance(a, bool)


def _size(a: Number) -> int | Expr:
    assert isinstance(a, int | Expr)
    return int(a) if isinstance(a, bool) else a


def _fraction(a: Number) -> tuple[int | Expr, int | Expr] | None:
    """Numerator and denominator; None for unknown, bool, infinity and NaN."""
    if isinstance(a, Ratio):
        return a.num, a.den
    if isinstance(a, float):
        return a.as_integer_ratio() if math.isfinite(a) else None
    return None if a is None or isinstance(a, bool) else (a, 1)


def _reduced(num: int | Expr, den: int | Expr) -> Number:
    """num / den as a size if it is one, else in lowest terms."""
    quotient = floordiv(num, den)
    if quotient * den == num:
        return quotient
    num, den = cancel(num, den)
    largest = max(abs(c) for size in (num, den) for _, c in terms_of(size))
    return Ratio(num, den) if largest <= MAX_COEFFICIENT else None
