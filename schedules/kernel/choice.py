"""The choice among variants, made by a kernel when it runs: the least of some prices."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tvm import tirx
from tvm.ir import Expr

from .emit import Body, allocate, bind, block, index


def cheapest(
    prices: Sequence[Expr],
    values: Sequence[int],
    body: Body,
    name: str,
    unless: Expr | None = None,
) -> tirx.Stmt:
    """`body` of the value whose price is the least; the first of equals, and `unless` as well.

    Prices take a detour through memory, which LLVM removes: as one expression of selections TVM's
    simplifier takes seconds for them.
    """
    if len(values) == 1:
        return body(index(values[0]))
    least, found = (allocate([1], "int64", part) for part in ("least", f"{name}_cell"))
    zero = [index(0)]

    def take(price: Expr, value: int) -> list[tirx.Stmt]:
        return [
            tirx.BufferStore(least, price, zero),
            tirx.BufferStore(found, index(value), zero),
        ]

    def compare(price: Expr, value: int) -> tirx.Stmt:
        return bind(
            price,
            lambda cost: tirx.IfThenElse(cost < least[index(0)], block(*take(cost, value)), None),
            "price",
        )

    compared = block(*take(prices[0], values[0]), *map(compare, prices[1:], values[1:]))
    if unless is not None:
        first = tirx.BufferStore(found, index(values[0]), zero)
        compared = tirx.IfThenElse(unless, first, compared)
    return block(
        tirx.AllocBuffer(least),
        tirx.AllocBuffer(found),
        compared,
        bind(found[index(0)], body, name),
    )


def of_height(heights: Sequence[int], height: Expr, body: Callable[[int], tirx.Stmt]) -> tirx.Stmt:
    """``body(height)`` for the one of `heights` that `height` is.

    One after another rather than nested: TVM's passes pay dearly for nested conditions.
    """
    if len(heights) == 1:
        return body(heights[0])
    return block(*(tirx.IfThenElse(height == own, body(own), None) for own in heights))


def pick(
    prices: Sequence[Expr], bodies: Sequence[tirx.Stmt], unless: Expr | None = None
) -> tirx.Stmt:
    """The body of the least price; `unless` that is not worth asking, the first one then."""
    if len(bodies) == 1:
        return bodies[0]

    def run(variant: Expr) -> tirx.Stmt:
        return block(*(tirx.IfThenElse(variant == n, body, None) for n, body in enumerate(bodies)))

    return cheapest(prices, range(len(bodies)), run, "variant", unless)
