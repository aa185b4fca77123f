"""Attention as equations in te: what FuseAttention puts in place of the operators it finds.

All operands are indexed by the loops ``lead..`` (batch and heads) and two more:

    query[lead, i, d]   key[lead, j, d]   value[lead, j, e]   extras[lead, i, j]   out[lead, i, e]

Half types are what operands and the result are stored in: everything between is float32. And each
operand is in memory in an `order` of its own: per dim of the tensor the position of the loop that
runs along it, or None for a dim of extent 1 that is broadcast. A loop that an operand's order
leaves out is one along which the operand is shared.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from tvm import te, tirx
from tvm.ir import Expr

from .widen_halves import HALVES

Order: TypeAlias = tuple[int | None, ...]

STEPS: Mapping[str, Callable[..., Expr]] = {
    "relax.add": lambda a, b: a + b,
    "relax.subtract": lambda a, b: a - b,
    "relax.multiply": lambda a, b: a * b,
    "relax.divide": lambda a, b: a / b,
    "relax.tanh": te.tanh,
    "relax.where": tirx.Select,
}
"""Operators that may stand between the first product and the softmax."""


@dataclass(frozen=True)
class Band:
    """A tensor over rows i and keys j: `inside` where j - i <= `offset`, else `outside`."""

    offset: int
    inside: float | bool
    outside: float | bool

    def at(self, i: Expr, j: Expr) -> Expr:
        near = j - i <= tirx.const(self.offset, "int64")
        if isinstance(self.inside, bool):
            return near if self.inside else tirx.Not(near)
        return tirx.Select(near, *(tirx.const(x, "float32") for x in (self.inside, self.outside)))


Argument: TypeAlias = int | float | Band | None


@dataclass(frozen=True)
class Step:
    """One operator on the scores. An argument is None (the scores), a number, a band or an extra.

    Extra tensors are given by their position, an int; numbers are floats.
    """

    op: str
    args: tuple[Argument, ...]


@dataclass(frozen=True)
class Form:
    """How attention is put together; `extras` are the orders of the tensors that steps read."""

    query: Order
    key: Order
    value: Order
    out: Order
    extras: tuple[Order, ...] = ()
    steps: tuple[Step, ...] = ()
    dtype: str = "float32"
    """The type of the result."""
    zero_for_nan: bool = False
    """Whether probabilities that are NaN count as zero: rows of which everything is masked."""


def attention(form: Form, tensors: Sequence[te.Tensor]) -> te.Tensor:
    """`tensors` are the query, the key, the value and the extras of `form`."""
    query, key, value, *extras = tensors
    scores = _scores(form, query, key)
    if form.steps:
        scores = _biased(form, scores, extras)
    probabilities = _softmax(scores, form.zero_for_nan)
    *lead, rows, keys = scores.shape
    _, width = _ends(form.value, value)
    sizes = [*lead, rows, width]
    j = te.reduce_axis((0, keys), "j")

    def result(*at: Expr) -> Expr:
        *first, row, column = (at[form.out.index(loop)] for loop in range(len(sizes)))
        part = _wide(_read(value, form.value, [*first, j, column]))
        return te.sum(probabilities(*first, row, j) * part, axis=j)

    shape = [sizes[loop] for loop in form.out if loop is not None]
    wide = te.compute(shape, result, name="attention")
    if form.dtype == str(wide.dtype):
        return wide
    return te.compute(shape, lambda *at: wide(*at).astype(form.dtype), name="rounded")


def _scores(form: Form, query: te.Tensor, key: te.Tensor) -> te.Tensor:
    (rows, depth), (keys, _) = _ends(form.query, query), _ends(form.key, key)
    extents = dict(zip(form.query, query.shape))
    lead = [extents[loop] for loop in range(len(query.shape) - 2)]
    d = te.reduce_axis((0, depth), "d")

    def product(*at: Expr) -> Expr:
        *first, i, j = at
        one, other = _read(query, form.query, [*first, i, d]), _read(key, form.key, [*first, j, d])
        return te.sum(_wide(one) * _wide(other), axis=d)

    return te.compute([*lead, rows, keys], product, name="scores")


def _biased(form: Form, scores: te.Tensor, extras: Sequence[te.Tensor]) -> te.Tensor:
    def value(*at: Expr) -> Expr:
        score = scores(*at)

        def argument(arg: Argument) -> Expr:
            if arg is None:
                return score
            if isinstance(arg, Band):
                return arg.at(*at[-2:])
            if isinstance(arg, float):
                return _scalar(arg, score)
            return _wide(_read(extras[arg], form.extras[arg], at))

        for step in form.steps:
            score = STEPS[step.op](*map(argument, step.args))
        return score

    return te.compute(scores.shape, value, name="biased")


def _softmax(scores: te.Tensor, zero_for_nan: bool) -> te.Tensor:
    *rows, keys = scores.shape
    j, k = te.reduce_axis((0, keys), "j"), te.reduce_axis((0, keys), "j")
    highest = te.compute(rows, lambda *at: te.max(scores(*at, j), axis=j), name="highest")
    weights = te.compute(
        scores.shape, lambda *at: te.exp(scores(*at) - highest(*at[:-1])), name="weights"
    )
    total = te.compute(rows, lambda *at: te.sum(weights(*at, k), axis=k), name="total")

    def probability(*at: Expr) -> Expr:
        part = weights(*at) / total(*at[:-1])
        return tirx.Select(tirx.isnan(part), _scalar(0.0, part), part) if zero_for_nan else part

    return te.compute(scores.shape, probability, name="probabilities")


def _ends(order: Order, tensor: te.Tensor) -> tuple[Expr, Expr]:
    """Extents of the last two loops of `tensor`."""
    last = max(position for position in order if position is not None)
    return tensor.shape[order.index(last - 1)], tensor.shape[order.index(last)]


def _read(tensor: te.Tensor, order: Order, loops: Sequence[Expr]) -> Expr:
    zero = tirx.const(0, "int64")
    return tensor(*(zero if position is None else loops[position] for position in order))


def _wide(value: Expr) -> Expr:
    return value.astype("float32") if str(value.ty.dtype) in HALVES else value


def _scalar(value: float, like: Expr) -> Expr:
    return tirx.const(value, like.ty.dtype)
