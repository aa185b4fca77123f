"""Shapes, axes and bounds that are tensors: sizes computed by a small kernel, then given names.

    sizes = kernel(x, operand)       int64[k], one kernel on a few numbers
    (n0, n1, ..) = sizes             a run with a negative one, or with another than is known, fails

From there on the sizes are symbols like others, and the kernels that use them are ordinary ones.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from tvm import relax, te, tirx
from tvm.ir import Expr, Var

from ..builder import Call, DeclinedError
from ..symbolic_node import MAX_RANK

KERNEL = {"op_pattern": 8, "tvmext.apart": 1}
"""Attributes of a kernel that no pass looks into: opaque to FuseOps, and none of the movement that
passes/virtual/ joins with its readers: it names sizes that only its output has."""


class Scalars:
    """Statements that compute numbers one after another.

    Code is written out wherever an expression is used; of values that build on several others it
    would grow exponentially. What is kept is stored, and used as a load.
    """

    def __init__(self) -> None:
        self.statements: list[tirx.Stmt] = []

    def keep(self, value: Any) -> Expr:
        value = expr(value).astype("int64")
        home = tirx.decl_buffer([int64(1)], "int64", "kept", scope="local")
        self.statements += [tirx.AllocBuffer(home), tirx.BufferStore(home, value, [int64(0)])]
        return home[int64(0)]


def sizes(call: Call, values: Callable[..., Sequence[Any]], *tensors: relax.Expr) -> relax.Expr:
    """int64 numbers as a tensor: what `values(scalars, *buffers)` gives for the tensors."""

    def compute(*args: te.Tensor) -> te.Tensor:
        number = len(values(Scalars(), *args))

        def store(read: Sequence[Var], written: Sequence[Var]) -> tirx.Stmt:
            scalars = Scalars()
            found = [expr(value).astype("int64") for value in values(scalars, *read)]
            stores = [tirx.BufferStore(written[0], v, [int64(k)]) for k, v in enumerate(found)]
            statements = [*scalars.statements, *stores]
            return tirx.SeqStmt(statements) if len(statements) > 1 else statements[0]

        return te.extern([(number,)], list(args), store, "sizes", dtype="int64")

    return call.emit(kernel(call, compute, tensors, "sizes"))


def matched(call: Call, tensor: relax.Expr, wanted: Sequence[Any]) -> None:
    """Name the numbers of an int64 tensor; a run in which one is negative fails.

    `wanted` are dims, which are matched if they are known, or variables that get a value.
    """
    dims = [n for n in wanted if not isinstance(n, Var)]
    call.builder.define(dims)
    names = [n if isinstance(n, Var) else call.prim(n) for n in wanted]
    positive = call.emit(relax.op.maximum(tensor, relax.const(np.array(0, np.int64), "int64")))
    both = call.emit(relax.op.concat([tensor, positive], 0))
    shape = call.emit(relax.op.tensor_to_shape(both))
    call.match(shape, relax.ShapeType([*names, *names]))


def integers(call: Call, index: int) -> relax.Expr:
    """An operand as int64 in one dim."""
    tensor = call.tensor(index)
    if call.dtype(index) != "int64":
        tensor = call.emit(relax.op.astype(tensor, "int64"))
    return tensor if call.rank(index) == 1 else call.emit(relax.op.reshape(tensor, (-1,)))


def count(call: Call, index: int) -> int:
    """How many numbers an operand has."""
    shape = call.shape(index)
    (size,) = call.fixed(shape, "an operand of sizes") if shape else (1,)
    if size > MAX_RANK:
        raise DeclinedError(f"{size} sizes; a tensor has at most {MAX_RANK} dims")
    return size


def kernel(
    call: Call, compute: Callable[..., te.Tensor], tensors: Sequence[Any], name: str
) -> relax.Expr:
    """One kernel from tensors and symbols, marked so that no fusion looks into its sizes."""
    return call.builder.bb.call_te(
        compute, *tensors, primfunc_name_hint=name, primfunc_attrs=KERNEL
    )


def out_of(call: Call, index: int = 0) -> Sequence[Any]:
    """The dims of an output, whether the program has them by now or not."""
    shape = call.builder.value(call.node.output[index]).shape
    if shape is None:
        raise DeclinedError("the number of dims of its result is not known")
    return shape


def constant(values: list[int]) -> relax.Expr:
    return relax.const(np.array(values, np.int64), "int64")


def scalar(value: int) -> relax.Expr:
    return relax.const(np.array(value, np.int64), "int64")


def int64(value: int) -> Expr:
    return tirx.const(value, "int64")


def expr(value: Any) -> Expr:
    return int64(value) if isinstance(value, int) else value


def product(sizes: Sequence[Any]) -> Expr:
    total = int64(1)
    for size in sizes:
        total = total * expr(size)
    return total


def all_of(conditions: Any) -> Expr:
    found: Expr = tirx.const(True, "bool")
    for condition in conditions:
        found = tirx.And(found, condition)
    return found
