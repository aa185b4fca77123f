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
    """``right % left == 0`` for "divides", ``max(left, right) == left`` for "left >= right"."""
    left, right = guard.left, guard.right
    match guard.op:
        case "==":
            found, wanted = left, right
        case ">=":
            found, wanted = maximum(left, right), left
        case "<=":
            found, wanted = maximum(left, right), right
        case _:
            found, wanted = right % left, 0
    shape = builder.bb.emit(builder.prims.shape([found]))
    builder.bb.match_cast(shape, relax.ShapeType([builder.prims.prim(wanted)]))
