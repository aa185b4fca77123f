"""Scaled dot-product attention as one kernel.

    out[.., i, :] = sum_j softmax_j(bias(scale * q[.., i, :] . k[.., j, :])) v[.., j, :]

`bias` is any chain of additions, products and selections with tensors that do not depend on the
scores: masks, as exporters write them. Casts between float types on the way are left out: what is
between the products is float32. Transposes that split and merge heads are read and written
through, and heads that share keys read them instead of a copy (attention_operand.py).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import tvm
from tvm import relax
from tvm.ir import GlobalVar
from tvm.relax.analysis import free_vars, get_var2val
from tvm.relax.expr_functor import PyExprMutator, mutator
from tvm.tirx import PrimFunc

from tvmext.frontends.reshape import reshape

from .attention import STEPS, Argument, Form, Order, Step, attention
from .attention_operand import (
    Bindings,
    Operand,
    band,
    called,
    fixed,
    number,
    operand,
    same,
    shape_of,
)
from .widen_halves import HALVES

FLOATS = frozenset({"float32", *HALVES})
OPAQUE = 8
"""OpPatternKind.kOpaque: FuseOps leaves such a kernel alone."""


@tvm.transform.module_pass(opt_level=1, name="FuseAttention")
class FuseAttention:
    """Put one call in place of every attention that `takes` has a schedule for.

    With `bands` a constant mask of two values, such as a causal one, is computed instead of read.
    What nobody reads any more is dead code.
    """

    def __init__(self, takes: Callable[[PrimFunc], bool], *, bands: bool = False) -> None:
        self.takes, self.bands = takes, bands

    def transform_module(self, mod: tvm.IRModule, _ctx: Any) -> tvm.IRModule:
        rewriter = _Rewriter(mod, self.takes)
        for var, func in mod.functions_items():
            if isinstance(func, relax.Function):
                rewriter.found = _find(func, self.bands)
                if rewriter.found:
                    rewriter.builder_.update_func(var, rewriter.visit_expr(func))
        return relax.transform.DeadCodeElimination()(rewriter.builder_.get())


@dataclass(frozen=True, eq=False)
class _Attention:
    """Operands, what happens to the scores, and how the result is permuted."""

    query: Operand
    key: Operand
    value: Operand
    steps: tuple[Step, ...]
    extras: tuple[relax.Expr, ...]
    zero_for_nan: bool
    axes: tuple[int, ...]


def _find(func: relax.Function, bands: bool) -> dict[relax.Expr, _Attention]:
    """Every attention, by the expression that computes its result."""
    bindings = Bindings(get_var2val(func))
    readers = Counter(var for value in bindings.values.values() for var in free_vars(value))
    readers.update(free_vars(func.body.body))
    found: dict[relax.Expr, _Attention] = {}
    for value in bindings.values.values():
        if called(value, "relax.matmul"):
            one = _match(value, bindings, readers)
            if one is not None:
                found[value] = _banded(one, shape_of(value.args[0])) if bands else one
    for value in bindings.values.values():
        if called(value, "relax.astype") and str(value.ty.dtype) in HALVES:
            product = bindings.of(value.args[0], "relax.matmul")
            if product in found and readers[value.args[0]] == 1:
                found[value] = found.pop(product)
    for value in bindings.values.values():
        if called(value, "relax.permute_dims"):
            inner = _through(value.args[0], bindings, readers, "relax.reshape")
            product = bindings.of(inner, "relax.matmul", "relax.astype")
            axes = tuple(int(axis) for axis in value.attrs.axes or ())
            if product in found and readers[inner] == 1 and axes[-1:] == (len(axes) - 1,):
                found[value] = replace(found.pop(product), axes=axes)
    return found


def _match(
    product: relax.Call, bindings: Bindings, readers: Counter[relax.Var]
) -> _Attention | None:
    """The attention that ends in `product`, or None."""
    probabilities, values = product.args
    softmax, zero_for_nan = _softmax(probabilities, bindings, readers)
    if softmax is None or int(softmax.attrs.axis) not in (-1, len(shape_of(softmax)) - 1):
        return None
    scores = _scores(softmax.args[0], bindings, readers)
    if scores is None:
        return None
    first, steps, extras = scores
    tensors = (*first.args, values)
    rank = len(shape_of(product))
    types = {str(t.ty.dtype) for t in tensors}
    if len(types) > 1 or not types <= FLOATS or any(len(shape_of(t)) != rank for t in tensors):
        return None
    query = operand(first.args[0], bindings, scaled=True, sharing=False)
    for sharing in (True, False):
        key = operand(first.args[1], bindings, scaled=True, sharing=sharing)
        value = operand(values, bindings, scaled=False, sharing=sharing)
        alike = (key.shared, key.times) == (value.shared, value.times)
        if alike and value.axes[-1] == rank - 1:
            break
    else:
        value = Operand(values, tuple(range(rank)))
    lead = [shape_of(t)[:-2] for t in tensors]
    ends = (fixed(shape_of(query.source)[query.axes[-1]]), fixed(shape_of(values)[-1]))
    if None in ends or not (same(lead[0], lead[1]) and same(lead[0], lead[2])):
        return None
    scale = query.scale * key.scale
    if scale != 1:
        steps = (Step("relax.multiply", (None, scale)), *steps)
    return _Attention(query, key, value, steps, extras, zero_for_nan, tuple(range(rank)))


def _softmax(
    expr: relax.Expr, bindings: Bindings, readers: Counter[relax.Var]
) -> tuple[relax.Call | None, bool]:
    """The softmax that `expr` is, and whether its NaN are replaced by zeros."""
    expr = _through(expr, bindings, readers, "relax.reshape", "relax.astype")
    guard = bindings.of(expr, "relax.where")
    if guard is None:
        return (bindings.of(expr, "relax.nn.softmax") if readers[expr] == 1 else None), False
    test = bindings.of(guard.args[0], "relax.isnan")
    safe = test is not None and test.args[0].same_as(guard.args[2])
    alone = readers[expr] == 1 and readers[guard.args[0]] == 1 and readers[guard.args[2]] == 2
    if not (safe and alone and number(guard.args[1]) == 0):
        return None, False
    return bindings.of(guard.args[2], "relax.nn.softmax"), True


def _scores(
    expr: relax.Expr, bindings: Bindings, readers: Counter[relax.Var]
) -> tuple[relax.Call, tuple[Step, ...], tuple[relax.Expr, ...]] | None:
    """The first product, and the steps from it to `expr` with the tensors they read."""
    if not isinstance(expr, relax.Var) or readers[expr] != 1:
        return None
    call = bindings.values.get(expr)
    if called(call, "relax.matmul"):
        return call, (), ()
    cast = bindings.of(expr, "relax.astype")
    if cast is not None and str(expr.ty.dtype) in FLOATS:
        return _scores(cast.args[0], bindings, readers)
    if not isinstance(call, relax.Call) or getattr(call.op, "name", "") not in STEPS:
        return None
    for position, arg in enumerate(call.args):
        if not same(shape_of(arg), shape_of(expr)):
            continue
        before = _scores(arg, bindings, readers)
        if before is not None:
            return _longer(before, call, position)
    return None


def _longer(before: Any, call: relax.Call, position: int) -> Any:
    """`before` with `call`, which reads the scores as its argument `position`, as the next step."""
    first, steps, extras = before
    args: list[Argument] = []
    for place, arg in enumerate(call.args):
        value = number(arg)
        if place == position:
            args.append(None)
        elif value is not None and str(arg.ty.dtype) in FLOATS:
            args.append(value)
        elif _broadcasts(shape_of(arg), shape_of(first)):
            args.append(len(extras))
            extras = (*extras, arg)
        else:
            return None
    return first, (*steps, Step(call.op.name, tuple(args))), extras


def _banded(one: _Attention, scores: list[Any]) -> _Attention:
    """`one` with the extras that are bands of the scores in its steps."""
    found = [band(extra, *scores[-2:]) for extra in one.extras]
    kept = [number for number, mask in enumerate(found) if mask is None]

    def argument(arg: Argument) -> Argument:
        return arg if not isinstance(arg, int) else found[arg] or kept.index(arg)

    steps = tuple(Step(step.op, tuple(map(argument, step.args))) for step in one.steps)
    return replace(one, steps=steps, extras=tuple(one.extras[number] for number in kept))


def _broadcasts(shape: list[Any], scores: list[Any]) -> bool:
    aligned = scores[len(scores) - len(shape) :]
    return len(shape) <= len(scores) and all(
        fixed(dim) == 1 or same([dim], [whole]) for dim, whole in zip(shape, aligned)
    )


def _through(
    expr: relax.Expr, bindings: Bindings, readers: Counter[relax.Var], *ops: str
) -> relax.Expr:
    """What `expr` is before `ops` that keep the shape and have no other reader."""
    call = bindings.of(expr, *ops)
    while call is not None and readers[expr] == 1 and same(shape_of(call.args[0]), shape_of(expr)):
        expr = call.args[0]
        call = bindings.of(expr, *ops)
    return expr


@mutator
class _Rewriter(PyExprMutator):
    def __init__(self, mod: tvm.IRModule, takes: Callable[[PrimFunc], bool]) -> None:
        super().__init__(mod)
        self.takes = takes
        self.taken: dict[GlobalVar, bool] = {}
        self.found: dict[relax.Expr, _Attention] = {}

    def visit_call_(self, call: relax.Call) -> relax.Expr:
        one = self.found.get(call)
        result = None if one is None else self._emit(one, call)
        return self.visit_expr_post_order(call) if result is None else result

    def _emit(self, one: _Attention, call: relax.Call) -> relax.Expr | None:
        loops = _Loops(len(one.axes), one.key.shared, one.key.times)
        *lead, depth, keys = one.key.axes
        heads = [loops.place(axes, shape_of(source)) for axes, source in (
            (_inverse(one.query.axes), one.query.source),
            (one.axes, call),
        )]  # fmt: skip
        extras = [loops.place(loops.aligned(shape_of(t)), shape_of(t)) for t in one.extras]
        form = Form(
            query=heads[0][0],
            key=loops.order((*lead, keys, depth)),
            value=loops.order(one.value.axes),
            out=heads[1][0],
            extras=tuple(order for order, _ in extras),
            steps=one.steps,
            dtype=str(call.ty.dtype),
            zero_for_nan=one.zero_for_nan,
        )
        split = [heads[0][1], None, None, *(shape for _, shape in extras)]
        sources = [one.query.source, one.key.source, one.value.source, *one.extras]
        tensors = [self._reshaped(source, shape) for source, shape in zip(sources, split)]
        result = self.builder_.call_te(
            partial(attention, form),
            tensors,
            primfunc_name_hint="attention",
            primfunc_attrs={"op_pattern": OPAQUE},
        )
        kernel = result.args[0]
        if kernel not in self.taken:
            self.taken[kernel] = self.takes(self.builder_.get()[kernel])
        if not self.taken[kernel]:
            return None
        if heads[1][1] is None:
            return result
        return reshape(self.builder_.emit(result), shape_of(call))

    def _reshaped(self, source: relax.Expr, shape: list[Any] | None) -> relax.Expr:
        source = self.visit_expr(source)
        return source if shape is None else self.builder_.emit(reshape(source, shape))


def _inverse(axes: Sequence[int]) -> list[int]:
    return sorted(range(len(axes)), key=lambda axis: axes[axis])


@dataclass(frozen=True)
class _Loops:
    """The loops of a kernel for the axes of the scores: the axis of shared heads has two."""

    rank: int
    shared: int | None
    times: int

    def _loop(self, axis: int) -> int:
        return axis + (self.shared is not None and axis > self.shared)

    def order(self, axes: Sequence[int]) -> Order:
        """Of an operand that the heads of a group share, axis `a` along dim ``axes[a]``."""
        return tuple(self._loop(axis) for axis in _inverse(axes))

    def aligned(self, shape: list[Any]) -> list[int | None]:
        """The axis that each dim of a tensor runs along which is broadcast to the scores."""
        first = self.rank - len(shape)
        return [None if fixed(dim) == 1 else first + at for at, dim in enumerate(shape)]

    def place(self, axes: Sequence[int | None], shape: list[Any]) -> tuple[Order, list[Any] | None]:
        """The order of a tensor by the axis of each dim, and its shape with heads in groups."""
        order: list[int | None] = []
        split: list[Any] = []
        for axis, dim in zip(axes, shape):
            if axis is not None and axis == self.shared:
                order += [axis, axis + 1]
                split += [dim // self.times, self.times]
            else:
                order.append(axis if axis is None else self._loop(axis))
                split.append(dim)
        return tuple(order), split if len(split) > len(shape) else None
