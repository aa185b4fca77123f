"""No kernel leaves its tensors, whatever the data is.

    x[f(data)]         becomes   x[clamp(f(data))]                        0 where x may be empty
    x[f(data)] = v     becomes   if f(data) is inside: x[f(data)] = v

Only what cannot be proven to lie inside is rewritten. The operators of indexing.py see to that
themselves and cost nothing here; this makes the others safe that TVM lowers, such as grid_sample
and index_put.
"""

from __future__ import annotations

from typing import Any

import tvm
import tvm_ffi
from tvm import s_tir, sym, tirx
from tvm.ir import Expr, TensorLoad, Var
from tvm.tirx import PrimFunc

from .rewrite import rewrite_bodies


@tvm.transform.module_pass(opt_level=0, name="BoundIndices")
class BoundIndices:
    """Rewrites the accesses of every PrimFunc at indices that are data."""

    def transform_module(self, mod: tvm.IRModule, _ctx: Any) -> tvm.IRModule:
        return rewrite_bodies(mod, _bounded)


def _bounded(func: PrimFunc) -> tirx.Stmt:
    return func.body if _for_threads(func) else _Accesses(func.body).bounded()


def _for_threads(func: PrimFunc) -> bool:
    """Whether TVM wrote the function for a GPU, such as its sorts: indices there are positions."""
    threads: list[tirx.IterVar] = []
    tvm_ffi.structural_walk(func.body, (tirx.IterVar, threads.append))
    return any(axis.thread_tag for axis in threads)


class _Accesses:
    """The accesses of one function's body."""

    def __init__(self, body: tirx.Stmt) -> None:
        self.body = body
        self.data: set[Var] = set()  # scalars that hold data
        self.analyzer = sym.Analyzer()

    def bounded(self) -> tirx.Stmt:
        """The body with accesses that stay inside."""
        found: list[Any] = []
        tvm_ffi.structural_walk(self.body, (tirx.Bind, self._bind))
        tvm_ffi.structural_walk(self.body, ((TensorLoad, tirx.BufferStore), found.append))
        if not any(self._is_data(index) for access in found for index in access.indices):
            return self.body
        self._learn_ranges(found)
        return tvm_ffi.structural_map(
            self.body, ((TensorLoad, self._load), (tirx.BufferStore, self._store))
        )

    def _bind(self, bind: tirx.Bind) -> None:
        if self._is_data(bind.value):
            self.data.add(bind.var)
            self.analyzer.bind(bind.var, bind.value)

    def _is_data(self, expr: Expr) -> bool:
        found: list[Any] = []
        tvm_ffi.structural_walk(expr, (TensorLoad, found.append))
        tvm_ffi.structural_walk(expr, (Var, found.append))
        return any(isinstance(node, TensorLoad) or node in self.data for node in found)

    def _learn_ranges(self, accesses: list[Any]) -> None:
        """Sizes are not negative, those of loops around everything not 0 where it matters."""
        for access in accesses:
            for size in _buffer(access).shape:
                if isinstance(size, Var):
                    self._at_least(size, 0)
        stmt = self.body
        if isinstance(stmt, s_tir.SBlockRealize):
            stmt = stmt.block.body
        while isinstance(stmt, tirx.For):
            if isinstance(stmt.extent, Var):
                self._at_least(stmt.extent, 1)
            stmt = stmt.body
        tvm_ffi.structural_walk(
            self.body,
            (
                (tirx.For, lambda loop: self._range(loop.loop_var, loop.min, loop.extent)),
                (tirx.IterVar, lambda axis: self._range(axis.var, axis.dom.min, axis.dom.extent)),
            ),
        )

    def _at_least(self, size: Var, low: int) -> None:
        self.analyzer.update(size, sym.ConstIntBound(low, sym.ConstIntBound.POS_INF), True)

    def _range(self, var: Var, low: Expr, extent: Expr) -> None:
        self.analyzer.bind(var, tvm.ir.Range.from_min_extent(low, extent))

    def _load(self, load: TensorLoad) -> Expr:
        indices, may_be_empty = list(load.indices), []
        for k, (index, extent) in enumerate(zip(load.indices, load.source.shape)):
            if not self._is_data(index):
                continue
            some = extent > 0
            with self.analyzer.constraint_scope(some):
                if not self._inside(index, extent):
                    last = (extent - 1).astype(index.ty.dtype)
                    indices[k] = tirx.max(tirx.min(index, last), tirx.const(0, index.ty.dtype))
            if not self.analyzer.can_prove(some):
                may_be_empty.append(some)
        if not may_be_empty and all(map(Expr.same_as, indices, load.indices)):
            return load
        value = load.source[tuple(indices)]
        if not may_be_empty:
            return value
        nothing = tirx.const(0, load.ty.dtype)
        return tirx.if_then_else(tirx.all(*may_be_empty), value, nothing)

    def _store(self, store: tirx.BufferStore) -> tirx.Stmt:
        conditions = [
            tirx.And(index >= 0, index < extent)
            for index, extent in zip(store.indices, store.buffer.shape)
            if self._is_data(index) and not self._inside(index, extent)
        ]
        return tirx.IfThenElse(tirx.all(*conditions), store, None) if conditions else store

    def _inside(self, index: Expr, extent: Expr) -> bool:
        if isinstance(index, tirx.FloorMod) and tvm_ffi.structural_equal(index.b, extent):
            return True
        return bool(self.analyzer.can_prove(tirx.And(index >= 0, index < extent)))


def _buffer(access: TensorLoad | tirx.BufferStore) -> Var:
    return access.source if isinstance(access, TensorLoad) else access.buffer
