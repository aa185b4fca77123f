"""Nested loops for TVM's IR builder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from tvm.ir import Expr
from tvm.script.ir_builder import tirx as T


def serial_loops(extents: Sequence[Any], body: Callable[[Sequence[Expr]], None]) -> None:
    """`body` of the indices within a serial loop per extent, outermost first; there may be none."""

    def at(done: Sequence[Expr]) -> None:
        if len(done) == len(extents):
            body(done)
        else:
            with T.serial(0, extents[len(done)]) as i:
                at((*done, i))

    at(())
