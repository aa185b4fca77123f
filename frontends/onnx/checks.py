"""Conditions on sizes that only the run knows, checked where it has come to know them.

A run in which one does not hold fails: a size is matched with what it has to be.
"""

from __future__ import annotations

from collections.abc import Iterable

from tvm import relax

from ..dims import Guard, maximum
from .builder import Builder


def emit(builder: Builder, guards: Iterable[Guard]) -> list[Guard]:
    """Check those of which the program has all sizes by now; returns the others."""
    waiting = []
    for guard in guards:
        if builder.has_defined((guard.left, guard.right)):
            _check(builder, guard)
        else:
            waiting.append(guard)
    return waiting


def _check(builder: Builder, guard: Guard) -> None:
    """A size that is 0 if the guard holds: ``max(left, right) - left`` for "left >= right".

    It is matched with 0, never with another size: TVM would put what is matched in its place.
    """
    left, right = guard.left, guard.right
    match guard.op:
        case "==":
            gap = left - right
        case ">=":
            gap = maximum(left, right) - left
        case "<=":
            gap = maximum(left, right) - right
        case _:
            gap = right % left
    shape = builder.bb.emit(builder.prims.shape([gap]))
    builder.match(shape, relax.ShapeType([builder.prims.prim(0)]), guard.reason or str(guard))
