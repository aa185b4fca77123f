"""Products of any number of columns where there turns out to be one: dot products.

    out[m, 0] = sum_k a[m, k] * b[k, 0]

No vector runs along a column that is not there. Made for one column, the product has its rows for
columns, and vectors run along the sum (one_row.py).
"""

from __future__ import annotations

from dataclasses import replace

from tvm import tirx
from tvm.ir import Expr, Var

from ..kernel.analysis import substitute, variables
from ..kernel.contraction import Contraction
from ..kernel.emit import block
from ..kernel.ranges import span
from ..rule import Kernel


def free_columns(found: Contraction, kernel: Kernel) -> Var | None:
    """The size that is the number of columns and of nothing else, if it is free and may be 1."""
    if len(found.cols) != 1:
        return None
    columns = found.cols[0].extent
    others = (axis.extent for axis in (*found.batch, *found.rows, *found.reduce))
    if not isinstance(columns, Var) or any(columns in variables(other) for other in others):
        return None
    low, high = span(found.cols, kernel.func)
    return columns if low <= 1 and (high is None or high >= 1) else None


def of_one_column(kernel: Kernel, columns: Var) -> Kernel:
    """The kernel for one column: its buffers are those of `kernel`, under other names."""
    func = kernel.func
    ones: dict[Var, Expr | Var] = {columns: tirx.const(1, "int64")}
    params = [_buffer(param, columns, ones) for param in func.params]
    ones |= dict(zip(func.params, params))
    made = tirx.PrimFunc(params, substitute(func.body, ones), func.ret_type, func.attrs)
    return replace(kernel, name=f"{kernel.name}_column", func=made, constant_args=frozenset())


def _buffer(param: Var, columns: Var, ones: dict[Var, Expr | Var]) -> Var:
    shape = getattr(param, "shape", ())
    if not any(columns in variables(n) for n in shape):
        return param
    return tirx.decl_buffer([substitute(n, ones) for n in shape], str(param.dtype), param.name)


def unless_one_column(
    body: tirx.Stmt, kernel: Kernel, columns: Var, column: tirx.PrimFunc
) -> tirx.Stmt:
    """`column` if there is one column, which is the kernel `of_one_column`, else `body`."""
    declared = [
        tirx.DeclBuffer(own, data=tirx.buffer.buffer_data(param))
        for own, param in zip(column.params, kernel.func.params)
        if not own.same_as(param)
    ]
    alone = block(*declared, column.body)
    return tirx.IfThenElse(columns.equal(tirx.const(1, "int64")), alone, body)
