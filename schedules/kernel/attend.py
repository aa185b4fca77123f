"""A kernel as attention: which loads are query, key and value, and what is done to the scores.

    scores[b, r, j] = sum_d query(b, r, d) * key(b, j, d)
    biased          = bias(scores)                                       may be missing
    out[b, r, e]    = sum_j softmax_j(scale * biased) * value(b, j, e)

Operands and output may be of half types, everything between is float32. Batch axes are those that
query and key share, rows those that only the query has: several heads that share their keys are
rows of one product.
"""

from __future__ import annotations

from dataclasses import dataclass

import tvm_ffi
from tvm import tirx
from tvm.ir import Call, Expr, TensorLoad, Var

from ..rule import Declined, Kernel
from .analysis import (
    Axis,
    Block,
    View,
    analyzer,
    collect,
    flat_index,
    stride,
    substitute,
    variables,
    without_copies,
)
from .view import view


@dataclass(frozen=True, eq=False)
class Attention:
    """Everything over the axes of the scores, and the axis `width` of the output."""

    batch: tuple[Axis, ...]
    rows: tuple[Axis, ...]
    keys: Axis
    depth: Axis
    width: Axis
    query: TensorLoad
    key: TensorLoad
    value: TensorLoad
    score: Var
    """Stands for the sum of products in `biased`."""
    biased: Expr
    scale: float
    """A positive factor of all scores."""
    lowest: Expr
    """What the maximum starts from."""
    out: Var
    where: tuple[Expr, ...]
    zero_for_nan: bool

    def unit_stride(self, load: TensorLoad, axis: Axis) -> bool:
        """Whether `load` walks memory element by element along `axis`."""
        ana = analyzer([*self.batch, *self.rows, self.keys, self.depth, self.width])
        step = stride(flat_index(load), axis.var, ana)
        return isinstance(step, tirx.IntImm) and step.value == 1


HALVES = ("float16", "bfloat16")


class _Declines(Exception):
    """Raised while reading a kernel that is not attention."""


def attention(kernel: Kernel) -> Attention | Declined:
    """Read a kernel as attention, or tell why it is none."""
    seen = view(kernel.func)
    if isinstance(seen, Declined):
        return seen
    ops = [block.combiner.op if block.combiner else "" for block in seen.reductions]
    if ops != ["add", "max", "add", "add"]:
        return Declined("not two products around a softmax")
    try:
        return _read(without_copies(seen))
    except _Declines as reason:
        return Declined(str(reason))


def _read(seen: View) -> Attention:
    scores, highest, total, last = seen.reductions
    query, key = _factors(scores)
    probabilities, value = _factors(last)
    if value.source in seen.producer:
        probabilities, value = value, probabilities
    out, where = _stored(last, seen)
    biased = _only_source(highest, seen)
    buffer = biased.stores[0].buffer
    zero_for_nan = _check_softmax(seen, probabilities.source, buffer, highest, total)
    score, bias = _bias(scores, biased)
    scale, bias = _scaled(bias, score)
    at = _renamed(last, probabilities, scores)
    value = substitute(value, at)
    batch, rows = _classified(scores, query, key, value)
    width = [axis for axis in last.spatial if axis.var not in at]
    if len(scores.reduce) != 1 or len(width) != 1:
        raise _Declines("the products have more than one inner axis")
    operands = [query, key, value, *collect(bias, TensorLoad)]
    if any(load.source in seen.producer for load in operands):
        raise _Declines("an operand is computed")
    return Attention(
        batch=batch,
        rows=rows,
        keys=scores.spatial[-1],
        depth=scores.reduce[0],
        width=width[0],
        query=query,
        key=key,
        value=value,
        score=score,
        biased=bias,
        scale=scale,
        lowest=highest.stores[0].init,
        out=out,
        where=tuple(substitute(index, at) for index in where),
        zero_for_nan=zero_for_nan,
    )


def _classified(
    scores: Block, query: TensorLoad, key: TensorLoad, value: TensorLoad
) -> tuple[tuple[Axis, ...], tuple[Axis, ...]]:
    """The batch axes and the rows of the scores, whose last axis must be that of the keys.

    An axis of one element may be a batch axis that no operand has.
    """
    *outer, keys = scores.spatial
    ours, theirs = variables(query), variables(key)
    if keys.var in ours or keys.var not in theirs:
        raise _Declines("the last axis of the scores is not that of the keys")
    unused = {axis.var for axis in outer if axis.size == 1 and axis.var not in ours}
    if any(axis.var not in ours for axis in outer if axis.size != 1):
        raise _Declines("the keys have an axis of their own")
    rows = tuple(axis for axis in outer if axis.var not in theirs | unused)
    if variables(value) & {axis.var for axis in rows}:
        raise _Declines("values differ between the rows")
    return tuple(axis for axis in outer if axis not in rows), rows


def _factors(block: Block) -> tuple[TensorLoad, TensorLoad]:
    assert block.combiner is not None
    product, init = block.combiner.value, block.stores[0].init
    if not isinstance(init, tirx.FloatImm) or init.value != 0 or not isinstance(product, tirx.Mul):
        raise _Declines("a sum is not one of products from zero")
    factors = [one.value if _widens(one) else one for one in (product.a, product.b)]
    if not all(isinstance(factor, TensorLoad) for factor in factors):
        raise _Declines("a factor is computed")
    return factors[0], factors[1]


def _widens(expr: Expr) -> bool:
    """Whether `expr` is a half as float32."""
    return isinstance(expr, tirx.Cast) and str(expr.value.ty.dtype) in HALVES


def _stored(last: Block, seen: View) -> tuple[Var, tuple[Expr, ...]]:
    """Where the second product goes over its axes, perhaps rounded to a half type on its way."""
    if len(last.stores) == 1 and len(seen.outputs) == 1:
        own, (out,) = last.stores[0], seen.outputs
        if own.buffer.same_as(out):
            return out, own.indices
        readers = seen.consumers.get(own.buffer, ())
        if len(readers) == 1 and len(readers[0].stores) == 1:
            store = readers[0].stores[0]
            value = store.value.value if isinstance(store.value, tirx.Cast) else store.value
            if (
                store.buffer.same_as(out)
                and str(out.ty.dtype) in HALVES
                and isinstance(value, TensorLoad)
                and all(isinstance(i, Var) for i in (*value.indices, *own.indices))
            ):
                axes = dict(zip(value.indices, own.indices))
                return out, tuple(substitute(index, axes) for index in store.indices)
    raise _Declines("something else than the second product is stored")


def _only_source(block: Block, seen: View) -> Block:
    sources = [seen.producer[load.source] for load in block.loads if load.source in seen.producer]
    if len(sources) != 1:
        raise _Declines(f"'{block.name}' reads {len(sources)} intermediate results, not one")
    return sources[0]


def _check_softmax(
    seen: View, probabilities: Var, biased: Var, highest: Block, total: Block
) -> bool:
    """Check ``exp(biased - highest) / total``; tells whether NaN counts as zero."""
    block = seen.producer.get(probabilities)
    if block is None or block.is_reduction:
        raise _Declines("the second product does not read a softmax")
    part, zero_for_nan = block.stores[0].value, False
    if isinstance(part, tirx.Select):
        test, zero, part = part.condition, part.true_value, part.false_value
        zero_for_nan = (
            _calls(test, "tirx.isnan")
            and tvm_ffi.structural_equal(test.args[0], part)
            and isinstance(zero, tirx.FloatImm)
            and zero.value == 0
        )
        if not zero_for_nan:
            raise _Declines("probabilities are selected by something else than NaN")
    if not isinstance(part, tirx.Div) or not _loads(part.b, total, block):
        raise _Declines("the weights are not divided by their sum")
    weights = seen.producer.get(part.a.source) if isinstance(part.a, TensorLoad) else None
    if weights is None or _only_source(total, seen) is not weights:
        raise _Declines("the sum is not one of the weights")
    power = weights.stores[0].value
    if not _calls(power, "tirx.exp") or not isinstance(power.args[0], tirx.Sub):
        raise _Declines("the weights are no powers")
    exponent = power.args[0]
    if not _loads(exponent.b, highest, weights) or not (
        isinstance(exponent.a, TensorLoad) and exponent.a.source.same_as(biased)
    ):
        raise _Declines("the exponents are not relative to the largest score")
    return zero_for_nan


def _calls(expr: Expr, name: str) -> bool:
    return isinstance(expr, Call) and getattr(expr.op, "name", "") == name


def _loads(expr: Expr, reduced: Block, block: Block) -> bool:
    """Whether `expr` is what `reduced` leaves for the row of the last axis of `block`."""
    row = [axis.var for axis in block.axes[:-1]]
    return (
        isinstance(expr, TensorLoad)
        and expr.source.same_as(reduced.stores[0].buffer)
        and len(row) == len(expr.indices)
        and all(i.same_as(v) for i, v in zip(expr.indices, row))
    )


def _bias(scores: Block, biased: Block) -> tuple[Var, Expr]:
    """The value of `biased` over the axes of `scores`, with a variable for the score."""
    score = Var("score", str(scores.stores[0].buffer.dtype))
    if biased is scores:
        return score, score
    loads = [ld for ld in biased.loads if ld.source.same_as(scores.stores[0].buffer)]
    if len(loads) != 1 or biased.is_reduction:
        raise _Declines("the scores are read at several places")
    at = _renamed(biased, loads[0], scores)
    if len(at) != len(biased.axes):
        raise _Declines("the scores are broadcast")

    def named(load: TensorLoad) -> Expr:
        return score if load.source.same_as(scores.stores[0].buffer) else load

    value = tvm_ffi.structural_map(biased.stores[0].value, (TensorLoad, named))
    return score, substitute(value, at)


def _scaled(bias: Expr, score: Var) -> tuple[float, Expr]:
    """``c * score`` as a factor and the rest: it can wait until the largest is subtracted."""
    if isinstance(bias, tirx.Mul):
        for value, factor in ((bias.a, bias.b), (bias.b, bias.a)):
            if value.same_as(score) and isinstance(factor, tirx.FloatImm) and factor.value > 0:
                return float(factor.value), score
    return 1.0, bias


def _renamed(block: Block, load: TensorLoad, scores: Block) -> dict[Var, Expr]:
    """Axes of `block` as those of `scores`, by where `load` reads."""
    own = [axis.var for axis in scores.spatial]
    axes = {axis.var for axis in block.axes}
    if len(own) != len(load.indices) or not all(
        isinstance(i, Var) and i in axes for i in load.indices
    ):
        raise _Declines(f"'{block.name}' does not read the scores in their order")
    return dict(zip(load.indices, own))


HIDDEN = -1e30
"""A key with this or less on its score is hidden: it weighs exactly 0 beside one that is seen."""


def mask(found: Attention) -> Expr | None:
    """What comes on top of the score in the end, if a tensor has a say in it."""
    added = _added(found.biased, found.score)
    return added if collect(added, TensorLoad) else None


def causal(found: Attention) -> tuple[Axis, int] | None:
    """The axis i of the rows, and n, if all that is done to the scores hides keys past i + n.

    Every row sees a key: n is not negative.
    """
    added = _added(found.biased, found.score)
    if not isinstance(added, tirx.Select) or not isinstance(added.condition, tirx.LE):
        return None
    left, right = added.condition.a, added.condition.b
    if not isinstance(left, tirx.Sub) or not isinstance(right, tirx.IntImm) or right.value < 0:
        return None
    seen, hidden = added.true_value, added.false_value
    constants = isinstance(seen, tirx.FloatImm) and isinstance(hidden, tirx.FloatImm)
    if not constants or seen.value != 0 or hidden.value > HIDDEN:
        return None
    key, row = (e.value if isinstance(e, tirx.Cast) else e for e in (left.a, left.b))
    for axis in found.rows:
        if key.same_as(found.keys.var) and row.same_as(axis.var):
            return axis, int(right.value)
    return None


def _added(biased: Expr, score: Var) -> Expr:
    if isinstance(biased, tirx.Add | tirx.Sub) and score in variables(biased.a):
        rest = _added(biased.a, score)
        return rest + biased.b if isinstance(biased, tirx.Add) else rest - biased.b
    if isinstance(biased, tirx.Add) and score in variables(biased.b):
        return biased.a + _added(biased.b, score)
    if isinstance(biased, tirx.Select) and score not in variables(biased.condition):
        return tirx.Select(
            biased.condition, _added(biased.true_value, score), _added(biased.false_value, score)
        )
    return tirx.const(0.0, "float32") if score in variables(biased) else biased
