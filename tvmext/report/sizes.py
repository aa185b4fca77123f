"""Numbers for sizes: what a type takes in memory, what a kernel reads and writes, what is planned.

An element that a kernel reads counts once, however often it is loaded, and one that it does not
read does not count: a gather of 3 rows reads 3 rows of its table.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from typing import Any

import tvm
import tvm_ffi
from tvm import ir, relax, s_tir, sym, tirx

from tvmext.arch import dtype_bits
from tvmext.frontends.dims import USUAL


class Sizes:
    """Evaluates the sizes of one function at the given dims."""

    def __init__(self, dims: Mapping[str, int]) -> None:
        self.dims = dict(dims)
        self._analyzer = sym.Analyzer()

    def number(self, size: Any) -> int:
        """A size of main as a number. Dims that are data, which nobody knows, count as `USUAL`."""
        return self._evaluated(size, lambda var: self.dims.get(var.name, USUAL))

    def shape(self, ty: Any) -> tuple[int, ...]:
        """The sizes of a tensor type; a shape that is not known is that of a scalar."""
        shape = getattr(ty, "shape", None)
        return tuple(map(self.number, getattr(shape, "values", shape) or ()))

    def bytes(self, ty: Any) -> int:
        """What a tensor, or all of a tuple, takes in memory."""
        if isinstance(ty, relax.TupleType):
            return sum(map(self.bytes, ty.fields))
        if not isinstance(ty, relax.TensorType):
            return 0
        return prod(self.shape(ty)) * dtype_bits(str(ty.dtype)) // 8

    def bytes_read(self, func: tirx.PrimFunc, args: Sequence[relax.Expr]) -> int:
        """What a kernel reads of the tensors among its arguments."""
        params = [param for param in func.params if tirx.is_buffer_var(param)]
        tensors = [arg for arg in args if isinstance(arg.ty, relax.TensorType)]
        known: dict[Any, int] = {}
        for param, arg in zip(params, tensors):
            for dim, size in zip(param.shape, self.shape(arg.ty)):
                known.setdefault(dim, size) if isinstance(dim, ir.Var) else None
        scalars = [param for param in func.params if not tirx.is_buffer_var(param)]
        numbers = [arg for arg in args if not isinstance(arg.ty, relax.TensorType)]
        known |= {param: self.number(n) for param, n in zip(scalars, numbers)}
        loads = self._loads(func, known)
        read: set[Any] = set()
        tvm_ffi.structural_walk(func.body, (ir.TensorLoad, lambda load: read.add(load.source)))
        total = 0
        for param, arg in zip(params, tensors):
            elements = prod(self.shape(arg.ty))
            elements = min(elements, loads.get(param, 0 if param not in read else elements))
            total += elements * dtype_bits(str(arg.ty.dtype)) // 8
        return total

    def planned_bytes(self, mod: tvm.IRModule) -> int:
        """The sum of the storages that the memory planner allocates."""
        total = 0

        def visit(expr: Any) -> None:
            nonlocal total
            called = getattr(getattr(expr, "op", None), "name", "")
            if called == "relax.memory.alloc_storage":
                total += prod(self.number(size) for size in expr.args[0].values)

        relax.analysis.post_order_visit(mod["main"], visit)
        return total

    def _loads(self, func: tirx.PrimFunc, known: Mapping[Any, int]) -> dict[Any, int]:
        """How many loads of each buffer the blocks of a function execute, at most."""
        loads: dict[Any, int] = {}

        def block(node: s_tir.SBlock) -> None:
            if not node.iter_vars:
                return
            extents = [iter_var.dom.extent for iter_var in node.iter_vars]
            times = prod(self._evaluated(e, lambda var: known.get(var, USUAL)) for e in extents)
            found: list[ir.TensorLoad] = []
            tvm_ffi.structural_walk(node.body, (ir.TensorLoad, found.append))
            for load in found:
                loads[load.source] = loads.get(load.source, 0) + times

        tvm_ffi.structural_walk(func.body, (s_tir.SBlock, block))
        return loads

    def _evaluated(self, size: Any, value: Any) -> int:
        if isinstance(size, int):
            return size
        if isinstance(size, tirx.IntImm):
            return int(size.value)
        loads: list[ir.TensorLoad] = []
        tvm_ffi.structural_walk(size, (ir.TensorLoad, loads.append))
        if loads:  # the samples of a RoiAlign follow from its regions
            return USUAL
        replaced = tvm_ffi.structural_map(
            size, (ir.Var, lambda var: tirx.IntImm(str(var.ty), value(var)))
        )
        found = self._analyzer.simplify(replaced)
        return int(found.value) if isinstance(found, tirx.IntImm) else USUAL
