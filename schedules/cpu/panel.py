"""A panel of columns of a product, and where it is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tvm import tirx
from tvm.ir import Expr

from ..kernel.contraction import Contraction, size
from ..kernel.emit import (
    Size,
    Values,
    bind,
    bind_each,
    block,
    index,
    known,
    loop,
    unravel,
    vectors,
)


@dataclass(frozen=True, eq=False)
class Panel:
    """The `number`-th panel of columns, `width` of the `total` columns, at batch point `at`.

    `partial` says that it is the last one and not full, `sure` how many of its columns there are
    at the least; `masks` that what is not there is left out by masks (masks.py).
    """

    sum: Contraction
    at: Values
    number: Expr
    start: Expr
    width: int
    total: Size
    partial: bool = False
    masks: bool = False
    sure: int = 0

    @property
    def ragged(self) -> bool:
        """Whether the last panel is not full."""
        return self.partial or not isinstance(self.total, int) or self.total % self.width != 0

    @property
    def never_full(self) -> bool:
        return self.partial or (isinstance(self.total, int) and self.total < self.width)

    @property
    def full(self) -> Expr:
        return self.start + self.width <= index(self.total)

    @property
    def valid(self) -> Expr:
        """How many columns of this panel exist."""
        return tirx.min(index(self.width), index(self.total) - self.start)

    def cols(self, j: Expr) -> Values:
        return unravel(self.start + j, self.sum.cols)

    def each(self, lanes: int, body: Callable[[Expr], tirx.Stmt]) -> tirx.Stmt:
        """``body(j)`` for every column that exists, in vectors, the rest one by one."""
        whole = vectors(self.width // lanes, lanes, body, False)
        if not self.ragged:
            return whole
        valid = self.valid
        done = valid // lanes * lanes
        part = block(
            vectors(known(valid // lanes), lanes, body, False),
            loop(known(valid % lanes), lambda j: body(j + done)),
        )
        return part if self.never_full else tirx.IfThenElse(self.full, whole, part)


def open_panel(
    total: Contraction,
    batch: Values,
    number: Expr,
    width: int,
    body: Callable[[Panel], tirx.Stmt],
    *,
    masks: bool = False,
) -> tirx.Stmt:
    """Bind where panel `number` of batch point `batch` is, for `body`."""

    def made(at: Values, name: Expr, start: Expr) -> tirx.Stmt:
        return body(Panel(total, at, name, start, width, size(total.cols), masks=masks))

    return bind_each(
        batch,
        lambda at: bind(
            number,
            lambda name: bind(
                name * width,
                lambda start: made(at, name, start),
                "column",
            ),
            "number",
        ),
    )
