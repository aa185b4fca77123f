"""The reshape of Relax for dims that are what they say.

``relax.op.reshape`` takes a dim of 0 for the dim that the tensor has there, as old ONNX does, also
in a shape expression: what has no elements would come out with some.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from tvm import relax
from tvm.ir import Op


def reshape(tensor: relax.Expr, dims: Iterable[Any]) -> relax.Call:
    """`tensor` with these dims; none is -1."""
    return relax.Call(Op.get("relax.reshape"), [tensor, relax.ShapeExpr(list(dims))])
