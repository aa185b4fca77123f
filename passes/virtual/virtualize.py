"""Replace chains of movement operators by one map each, read where it is needed.

    y = op_n(... op_1(x))        becomes   nothing          the map is the identity
    f(y)                                   view(x)          the map is a view of x
                                           loader(x)        one kernel for the whole chain

Operators that cancel disappear, and so do those in between that nobody else reads. A loader is
emitted before each consumer that FuseOps can fuse it into, or once where one of the consumers must
have the data in memory. After VTC (arXiv 2604.09558), read side.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np
import tvm
from tvm import relax
from tvm.relax.expr_functor import PyExprMutator, mutator

from tvmext.frontends.dims import product

from ..constants import constant, constant_values
from .analysis import Moved, Movement, analyze
from .classify import Access, classify
from .emit import loader, view
from .evaluate import materialize
from .piece import Home
from .regroup import regrouped
from .scope import Size
from .tensor import MOST_BOXES, VirtualTensor

MAX_KNOWN = 1 << 14
"""Elements of known values that are at most this many are written down, not copied at run time."""


@tvm.transform.module_pass(opt_level=1, name="VirtualTensors")
class VirtualTensors:
    """Virtualise the movement operators of every Relax function that is not a kernel itself."""

    def transform_module(self, mod: tvm.IRModule, _ctx: Any) -> tvm.IRModule:
        rewriter = _Rewriter(mod)
        for var, func in mod.functions_items():
            if isinstance(func, relax.Function) and not (func.attrs or {}).get("Primitive", False):
                movement = analyze(func, mod)
                if movement.moved:
                    rewriter.start(movement)
                    rewriter.builder_.update_func(var, rewriter.visit_expr(func))
        return relax.transform.DeadCodeElimination()(rewriter.builder_.get())


@mutator
class _Rewriter(PyExprMutator):
    """Leaves out movement operators and writes loaders where their results are read."""

    def __init__(self, mod: tvm.IRModule) -> None:
        super().__init__(mod)
        self.movement = Movement()
        self.written: dict[relax.Var, relax.Expr] = {}
        self.passing: dict[relax.Var, relax.Expr] = {}

    def start(self, movement: Movement) -> None:
        """Takes up another function."""
        self.movement = movement
        self.written, self.passing = {}, {}

    def visit_var_binding_(self, binding: relax.VarBinding) -> None:
        var, value = binding.var, binding.value
        if var in self.movement.outputs:
            self.written[var] = self.builder_.emit_output(self._read(var), var.name)
            self.set_var_remap(var, self.written[var])
        elif var not in self.movement.moved:
            if isinstance(value, relax.If):  # what a branch writes is not seen outside of it
                for free in relax.analysis.free_vars(value):
                    self.visit_expr(free)
            super().visit_var_binding_(binding)
            self.passing = {}

    def visit_dataflow_var_(self, var: relax.DataflowVar) -> relax.Expr:
        return self._read(var) if var in self.movement.moved else super().visit_dataflow_var_(var)

    def visit_var_(self, var: relax.Var) -> relax.Expr:
        return self._read(var) if var in self.movement.moved else super().visit_var_(var)

    def _read(self, var: relax.Var) -> relax.Expr:
        """The moved data, written here if it is not in memory: for good or for one consumer."""
        known = self.written.get(var, self.passing.get(var))
        if known is not None:
            return known
        expr = self._write(var, self.movement.moved[var])
        (self.written if var in self.movement.materialized else self.passing)[var] = expr
        return expr

    def _write(self, var: relax.Var, moved: Moved) -> relax.Expr:
        """Nothing, a constant, a reshape or a loader, whatever the map needs."""
        tensor = _cheaper(moved)
        known = self._constant(tensor, str(var.ty.dtype))
        if known is not None and (tensor.homes or var in self.movement.materialized):
            return known
        profile = classify(tensor)
        if profile.access in (Access.IDENTITY, Access.VIEW) and profile.offset == 0:
            (home,) = tensor.homes
            source = self.visit_expr(self.movement.homes[home.name])
            if profile.access is Access.IDENTITY:
                return source
            if product(home.shape) == product(tensor.shape):
                if not self._may_fuse(var, home):
                    return self._view(source, tensor.shape, var.name)
                call = loader(
                    self.builder_,
                    tensor,
                    {home.name: source},
                    self.movement.prims,
                    str(var.ty.dtype),
                    moved.operators,
                    view=True,
                )
                return self.builder_.emit(call, var.name)
        return self._load(var, moved, tensor)

    def _constant(self, tensor: VirtualTensor, dtype: str) -> relax.Expr | None:
        """The elements, if they are known and few."""
        homes = {home.name: self.movement.homes[home.name] for home in tensor.homes}
        sizes = [size for size in tensor.shape if isinstance(size, int)]
        count = prod(sizes)
        if len(sizes) < tensor.rank or count > MAX_KNOWN:
            return None
        values = constant_values(list(homes.values()), lambda _: None)
        if values is None:
            return None
        return constant(materialize(tensor, dict(zip(homes, values)), dtype=np.dtype(dtype)))

    def _may_fuse(self, var: relax.Var, home: Home) -> bool:
        """Whether a reshape saves more in the kernel before or after it than as a view.

        An output is no view, so its reshape is best done by the kernel that makes the data.
        """
        movement = self.movement
        between = var not in movement.materialized and home.name in movement.fusible
        return var in movement.outputs or between

    def _load(self, var: relax.Var, moved: Moved, tensor: VirtualTensor) -> relax.Expr:
        """A loader between views of its operands and, if it is no consumer's own, of its result."""
        movement = self.movement
        wanted = tensor
        if self.builder_.current_block_is_dataflow():  # elsewhere a view would be a copy
            alone = var in movement.materialized and var not in movement.outputs
            tensor = regrouped(tensor, alone, movement.fusible)
        sources = {}
        for home in tensor.homes:
            source = self.visit_expr(movement.homes[home.name])
            if home not in wanted.homes:
                source = self._view(source, home.shape, home.name.partition("#")[0])
            sources[home.name] = source
        dtype = str(var.ty.dtype)
        apart = var in movement.materialized and tensor.boxes > MOST_BOXES  # fused, it would go on
        call = loader(
            self.builder_, tensor, sources, movement.prims, dtype, moved.operators, apart=apart
        )
        result = self.builder_.emit(call, var.name)
        return (
            result if tensor.shape == wanted.shape else self._view(result, wanted.shape, var.name)
        )

    def _view(self, source: relax.Expr, shape: Sequence[Size], name: str) -> relax.Var:
        prims = self.movement.prims.prim_shape(shape)
        return self.builder_.emit(view(self.builder_, source, prims), name)


def _cheaper(moved: Moved) -> VirtualTensor:
    """The map from memory that exists anyway, unless the one from further back is simpler."""
    return moved.near if moved.near == moved.deep else min(moved.near, moved.deep, key=_cost)


def _cost(tensor: VirtualTensor) -> tuple[int, int]:
    """The kind of access, then the number of pieces that an element is looked for in."""
    return list(Access).index(classify(tensor).access), len(tensor.pieces)
