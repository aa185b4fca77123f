"""Intermediate results share memory.

    a = alloc_tensor(shape)                    arena = alloc_storage(bytes)
    kernel(x, a)                   becomes     a = alloc_tensor(arena, offset, shape)
                                               kernel(x, a)

All tensors of known size lie in one arena, each where nothing lies that exists at the same time;
tensors of the same place and type are one variable. Of sizes that are known at run time only, those
that may share memory are the groups of `storage.shared`, as large as the largest of each. A
tensor that outlives the call, or may, keeps memory of its own. TVM's StaticPlanBlockMemory reuses
whole storages, in order, and symbolic ones only for the same size.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import mul
from typing import Any

import tvm
import tvm_ffi
from tvm import ir, relax, sym, tirx
from tvm.relax.expr_functor import PyExprMutator, mutator

from tvmext.arch import dtype_bits
from tvmext.frontends.dims import USUAL

from .rewrite import rewrite
from .storage import Life, offsets, shared

ALIGNMENT = 64
"""Bytes: at what the runtime hands a tensor to kernels without a copy (kAllocAlignment of TVM)."""


@tvm.transform.module_pass(opt_level=0, name="PlanMemory")
class PlanMemory:
    """Give every tensor that a function allocates for itself a place in memory it shares.

    `sizes` of free dims, by name, tell large tensors from small ones.
    """

    def __init__(self, sizes: Mapping[str, int]) -> None:
        self.sizes = dict(sizes)

    def transform_module(self, mod: tvm.IRModule, _ctx: Any) -> tvm.IRModule:
        return rewrite(mod, _Rewriter(mod, self.sizes))


@dataclass(frozen=True, eq=False)
class _Tensor:
    """What one ``alloc_tensor`` makes: its bytes, at most; where it exists; on which device."""

    var: relax.Var
    bytes: Any
    life: Life
    device: tuple[str, str]

    @property
    def is_static(self) -> bool:
        return isinstance(self.bytes, tirx.IntImm)


@dataclass(frozen=True, eq=False)
class _Place:
    """Where a tensor lies: in the memory of a group, at an offset in bytes."""

    group: int
    bytes: Any
    offset: int


class _Lifetimes:
    """What the bindings of a function allocate, and from which to which of them it exists."""

    def __init__(self, func: relax.Function, mod: tvm.IRModule, sizes: Mapping[str, int]) -> None:
        self.mod = mod
        self.bounds = _Bounds(func, sizes)
        self.allocated: dict[relax.Var, relax.Call] = {}
        self.holds: dict[relax.Var, frozenset[relax.Var]] = {}
        self.first: dict[relax.Var, int] = {}
        self.last: dict[relax.Var, int] = {}
        self.escaped: set[relax.Var] = set()
        bindings = [b for block in func.body.blocks for b in block.bindings]
        for step, binding in enumerate(bindings):
            self._bind(step, binding.var, getattr(binding, "value", None))
        self.escaped |= self._held(func.body.body)

    def tensors(self) -> list[_Tensor]:
        return [
            self._tensor(var, call)
            for var, call in self.allocated.items()
            if var not in self.escaped and var in self.last
        ]

    def _tensor(self, var: relax.Var, call: relax.Call) -> _Tensor:
        size = self.bounds.bytes(call.ty)
        life = Life(self.bounds.usual(size), self.first[var], self.last[var])
        return _Tensor(var, size, life, (str(call.args[2]), str(call.args[3])))

    def _bind(self, step: int, var: relax.Var, value: Any) -> None:
        name = getattr(getattr(value, "op", None), "name", "")
        if name == "relax.builtin.alloc_tensor":
            self.allocated[var] = value
            self.holds[var] = frozenset([var])
            self.first[var] = step
            return
        used = self._held(value)
        if name in _RENAMING or isinstance(value, relax.Var | relax.Tuple | relax.TupleGetItem):
            self.holds[var] = used
        elif not self._is_kernel(value):
            self.escaped |= used
        for tensor in used:
            self.last[tensor] = step

    def _held(self, value: Any) -> frozenset[relax.Var]:
        """The allocated tensors that an expression mentions, or that what it mentions may be."""
        found: set[relax.Var] = set()

        def visit(expr: Any) -> None:
            if isinstance(expr, relax.Var):
                found.update(self.holds.get(expr, ()))

        if value is not None:
            relax.analysis.post_order_visit(value, visit)
        return frozenset(found)

    def _is_kernel(self, value: Any) -> bool:
        """Whether a call keeps no argument: a PrimFunc's, or that of what returns nothing."""
        if not isinstance(value, relax.Call):
            return False
        if getattr(value.op, "name", "") == "relax.vm.call_tir_dyn":
            return True
        if isinstance(value.op, tvm.ir.GlobalVar):
            return isinstance(self.mod[value.op], tirx.PrimFunc)
        nothing = isinstance(value.ty, relax.TupleType) and not value.ty.fields
        return isinstance(value.op, relax.ExternFunc) and nothing


_RENAMING = ("relax.reshape", "relax.memory.view", "relax.memory.ensure_zero_offset")


class _Bounds:
    """Sizes of a function's tensors, each dim at its upper bound if it has one."""

    def __init__(self, func: relax.Function, sizes: Mapping[str, int]) -> None:
        self.sizes = sizes
        self.params = set(relax.analysis.tir_vars_in_type(func.ty))
        self.highest, self.proofs = sym.Analyzer(), sym.Analyzer()
        high = (func.attrs or {}).get("tir_var_upper_bound", {})
        for var in self.params:
            self.proofs.bind(var, ir.Range(0, _MANY))
            if var.name in high:
                self.highest.bind(var, ir.Range(0, int(high[var.name]) + 1))

    def bytes(self, ty: relax.TensorType) -> Any:
        """The bytes of a tensor, or the most that they can be."""
        each = tirx.IntImm("int64", -(-dtype_bits(str(ty.dtype)) // 8))
        return self.highest.simplify(reduce(mul, map(self._highest, ty.shape.values), each))

    def _highest(self, dim: Any) -> Any:
        most = self.highest.const_int_bound(dim).max_value
        return dim if most >= _MANY else tirx.IntImm("int64", most)

    def usual(self, size: Any) -> int:
        """A size as a number; dims of which nothing is known count as `USUAL`."""

        def known(var: ir.Var) -> tirx.IntImm:
            return tirx.IntImm(str(var.ty), self.sizes.get(var.name, USUAL))

        found = self.highest.simplify(tvm_ffi.structural_map(size, (ir.Var, known)))
        return int(found.value) if isinstance(found, tirx.IntImm) else USUAL

    def alike(self, sizes: Sequence[Any]) -> list[list[int]]:
        """Sizes, by position, of which one storage may be made before any tensor is.

        What the parameters of the function do not tell is only known to be the same size.
        """
        classes: dict[Any, list[int]] = {}
        for k, size in enumerate(sizes):
            free: set[Any] = set()
            tvm_ffi.structural_walk(size, (ir.Var, free.add))
            known = None if free <= self.params else tvm_ffi.structural_hash(size)
            classes.setdefault(known, []).append(k)
        return list(classes.values())

    def largest(self, sizes: Sequence[Any]) -> Any:
        """The largest of some sizes, less those that are certainly below another."""
        kept: list[Any] = []
        for size in sizes:
            if not any(self.proofs.can_prove(size <= other) for other in kept):
                kept = [k for k in kept if not self.proofs.can_prove(k <= size)] + [size]
        return reduce(tirx.max, kept)


_MANY = 2**40
"""More than any dim is."""


def plan(tensors: Sequence[_Tensor], bounds: _Bounds) -> dict[relax.Var, _Place]:
    """A place for each tensor: those of one device lie in one arena, or in groups of one size."""
    places: dict[relax.Var, _Place] = {}
    groups = 0
    for device in dict.fromkeys(tensor.device for tensor in tensors):
        here = [tensor for tensor in tensors if tensor.device == device]
        static = [tensor for tensor in here if tensor.is_static]
        begins, total = offsets([tensor.life for tensor in static], ALIGNMENT)
        size = tirx.IntImm("int64", total)
        places |= {t.var: _Place(groups, size, begin) for t, begin in zip(static, begins)}
        groups += 1
        symbolic = [tensor for tensor in here if not tensor.is_static]
        for alike in bounds.alike([tensor.bytes for tensor in symbolic]):
            some = [symbolic[k] for k in alike]
            for group in shared([tensor.life for tensor in some]):
                size = bounds.largest([some[k].bytes for k in group])
                places |= {some[k].var: _Place(groups, size, 0) for k in group}
                groups += 1
    return places


@mutator
class _Rewriter(PyExprMutator):
    def __init__(self, mod: tvm.IRModule, sizes: Mapping[str, int]) -> None:
        super().__init__(mod)
        self.mod = mod
        self.sizes = sizes
        self.places: Mapping[relax.Var, _Place] = {}

    def visit_function_(self, func: relax.Function) -> relax.Expr:
        lifetimes = _Lifetimes(func, self.mod, self.sizes)
        self.places = plan(lifetimes.tensors(), lifetimes.bounds)
        self.storages: dict[int, relax.Var] = {}
        self.made: list[tuple[_Place, Any, relax.Var]] = []
        return super().visit_function_(func)

    def visit_var_binding_(self, binding: relax.VarBinding) -> None:
        place = self.places.get(binding.var)
        if place is None:
            super().visit_var_binding_(binding)
        else:
            self.set_var_remap(binding.var, self._tensor(place, binding.var, binding.value))

    def _tensor(self, place: _Place, var: relax.Var, call: relax.Call) -> relax.Var:
        """The tensor at a place, made once for all that are alike."""
        for known, ty, made in self.made:
            same = known.group == place.group and known.offset == place.offset
            if same and tvm_ffi.structural_equal(ty, call.ty):
                return made
        storage = self._storage(place, call)
        shape, dtype, device, _ = call.args
        alloc = relax.op.memory.alloc_tensor(storage, place.offset, shape, dtype, device)
        made = self.builder_.emit(alloc, var.name)
        if place.offset:
            made = self.builder_.emit(relax.op.memory.ensure_zero_offset(made), var.name)
        self.made.append((place, call.ty, made))
        return made

    def _storage(self, place: _Place, call: relax.Call) -> relax.Var:
        if place.group not in self.storages:
            _, _, device, scope = call.args
            size = relax.ShapeExpr([place.bytes])
            made = relax.op.memory.alloc_storage(size, device, scope.value, "uint8")
            self.storages[place.group] = self.builder_.emit(made, "storage")
        return self.storages[place.group]
