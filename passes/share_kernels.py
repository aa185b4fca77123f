"""Kernels that differ only in how their sizes are computed become one kernel.

    f(x: [n, (h + 3)//4], h)   and   g(x: [n, (h + 7)//8], h)     become     k(x: [n, size])

Inside a kernel every size is a variable or simple arithmetic of some; the callers compute the rest,
once per call. Without, the arithmetic is in the address of every load and store, which LLVM takes
minutes for.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import tvm
import tvm_ffi
from tvm import relax, tirx
from tvm.ir import GlobalVar, Var
from tvm.relax.expr_functor import PyExprMutator, mutator
from tvm.tirx import PrimFunc

from tvmext.frontends.dims import Dim, bounds

from .names import unnumbered
from .rewrite import rewrite
from .size_names import Size, SizeNames
from .virtual.prims import Prims, UnmappedError, to_prim

_SIZES = (Var, tirx.Add, tirx.Sub, tirx.Mul, tirx.FloorDiv, tirx.FloorMod, tirx.Min, tirx.Max)
_CALLS = ("relax.call_tir", "relax.call_tir_inplace")


RANGES = "tvmext.ranges"
"""Attribute of a PrimFunc: {name of a size: [least, most]}; the schedules read it."""

NO_LIMIT = -1


@tvm.transform.module_pass(opt_level=1, name="ShareKernels")
class ShareKernels:
    """Names the sizes of every PrimFunc that Relax functions call, then joins equal ones.

    Kernels are numbered anew, in the order of their first calls: TVM passes the sizes of a kernel
    in the order of their addresses, so which kernels it found equal differs from run to run.

    Where the user gave ranges of `dims`, kernels know those of their sizes (attribute `RANGES`).
    """

    def __init__(self, dims: Mapping[str, Dim] = MappingProxyType({})) -> None:
        limited = any(dim.high is not None for dim in dims.values())
        self.dims = dims if limited else {}

    def transform_module(self, mod: tvm.IRModule, _ctx: Any) -> tvm.IRModule:
        kernels = {call.args[0] for call in _calls(mod)}
        rest = {var: func for var, func in mod.functions_items() if var not in kernels}
        rest = tvm.IRModule(rest, attrs=mod.attrs, global_infos=mod.global_infos)
        return rewrite(rest, _Rewriter(rest, mod, self.dims))


def _calls(mod: tvm.IRModule) -> list[relax.Call]:
    found: list[relax.Call] = []

    def visit(expr: relax.Expr) -> None:
        if getattr(getattr(expr, "op", None), "name", "") in _CALLS:
            found.append(expr)

    for _, func in mod.functions_items():
        if isinstance(func, relax.Function):
            relax.analysis.post_order_visit(func, visit)
    return found


@dataclass(frozen=True, eq=False)
class _Named:
    """A kernel with names for its sizes, and how its callers get what it does not know itself.

    `values` are the scalar arguments in terms of the dims of the old kernel, `places` where those
    dims are found: (parameter, None) for a scalar, (parameter, dim) for a dim of a tensor.
    """

    func: PrimFunc
    inputs: int
    values: tuple[Size, ...] = ()
    places: Mapping[str, tuple[int, int | None]] | None = None
    sizes: Mapping[str, Size] = field(default_factory=dict)
    """All sizes by the names that the kernel has for them."""

    def arguments(self, call: relax.Call) -> list[Any] | None:
        """The arguments of a call of the old kernel for the new one; None if they are unknown."""
        if self.places is None:
            return list(call.args[1].fields)
        dims = self._dims(call)
        if dims is None:
            return None
        scalars = [to_prim(value, dims) for value in self.values]
        return [*call.args[1].fields[: self.inputs], *scalars]

    def ranged(self, call: relax.Call, ranges: Mapping[str, Dim]) -> PrimFunc:
        """The kernel as this call needs it: with what its sizes may be."""
        dims = self._dims(call) if ranges and self.places is not None else None
        if dims is None:
            return self.func
        found = {}
        for name, value in self.sizes.items():
            low, high = bounds(Prims().size(to_prim(value, dims)), ranges)
            found[name] = [low or 0, NO_LIMIT if high is None else high]
        return self.func.with_attr(RANGES, found)

    def _dims(self, call: relax.Call) -> dict[str, Any] | None:
        """The dims of the old kernel at a call, by name; None if they are unknown."""
        assert self.places is not None
        types = [arg.ty for arg in call.args[1].fields] + _output_types(call)
        dims = {}
        for name, (param, dim) in self.places.items():
            if dim is None:
                dims[name] = call.args[1].fields[param]
            elif isinstance(getattr(types[param], "shape", None), relax.ShapeExpr):
                dims[name] = types[param].shape.values[dim]
            else:
                return None
        return dims


def _output_types(call: relax.Call) -> list[Any]:
    """The types of the results that have a parameter of their own."""
    (ty,) = call.ty_args
    types = list(ty.fields) if isinstance(ty, relax.TupleType) else [ty]
    places = getattr(call.attrs, "inplace_indices", [-1] * len(types))
    return [ty for ty, place in zip(types, places) if place == -1]


@mutator
class _Rewriter(PyExprMutator):
    def __init__(self, rest: tvm.IRModule, mod: tvm.IRModule, dims: Mapping[str, Dim]) -> None:
        super().__init__(rest)
        self.dims = dims
        self.mod = mod
        self.named: dict[GlobalVar, _Named] = {}

    def visit_call_(self, call: relax.Call) -> relax.Expr:
        if getattr(call.op, "name", "") not in _CALLS:
            return self.visit_expr_post_order(call)
        old = call.args[0]
        if old not in self.named:
            self.named[old] = _named(self.mod[old], len(call.args[1].fields))
        named = self.named[old]
        arguments = named.arguments(call)
        func = named.ranged(call, self.dims)
        if arguments is None:
            func, arguments = self.mod[old], list(call.args[1].fields)
        new = self.builder_.add_func(func, unnumbered(old.name_hint))
        args = [new, relax.Tuple(arguments), *call.args[2:]]
        return self.visit_expr_post_order(
            relax.Call(call.op, args, call.attrs, ty_args=call.ty_args)
        )


def _named(func: PrimFunc, inputs: int) -> _Named:
    """The kernel with names for its sizes; as it is if they cannot all be named."""
    try:
        return _Kernel(func, inputs).named()
    except UnmappedError:
        return _Named(func, inputs)


class _Kernel:
    """One kernel whose sizes get names. `inputs` is the number of its arguments, scalars included.

    Raises UnmappedError for a kernel that is not a plain function of tensors and sizes.
    """

    def __init__(self, func: PrimFunc, inputs: int) -> None:
        self.func = func
        self.inputs = inputs
        self.params = list(func.params)
        self.tensors = [p for p in self.params if tirx.is_buffer_var(p)]
        self.scalars = [p for p in self.params if not tirx.is_buffer_var(p)]
        first = [tirx.is_buffer_var(p) for p in self.params[:inputs]]
        if first != sorted(first, reverse=True) or any(map(_odd, self.params)):
            raise UnmappedError("its parameters are not tensors and then sizes")
        self.prims = Prims()
        self.dims = set(self.scalars).union(*(_scalars(p.shape) for p in self.tensors))
        if not self.dims:
            raise UnmappedError("all its sizes are numbers")
        self.names = SizeNames.of(self._shapes(), self._others())
        self.fresh = {name: Var(name, "int64") for name in self.names.names}
        self.buffers: dict[Var, Var] = {}
        self.expressed: dict[Size, Any] = {}

    def named(self) -> _Named:
        tensors = {param: self._buffer(param) for param in self.tensors}
        body = tvm_ffi.structural_map(self.func.body, (_SIZES, self._size), order="pre")
        body = tvm_ffi.structural_map(body, (Var, self._buffer))
        used = [var for param in tensors.values() for dim in param.shape for var in _scalars(dim)]
        used += _scalars(body)
        if self.dims & set(used):
            raise UnmappedError("a size is hidden in what is not rewritten")
        bound = {dim for param in tensors.values() for dim in param.shape if isinstance(dim, Var)}
        names = {var: name for name, var in self.fresh.items() if var not in bound}
        passed = [var for var in dict.fromkeys(used) if var in names]
        inputs = [tensors[p] for p in self.params[: self.inputs] if p in tensors]
        outputs = [tensors[p] for p in self.params[self.inputs :]]
        func = PrimFunc([*inputs, *passed, *outputs], body, self.func.ret_type, self.func.attrs)
        values = tuple(self.names.names[names[var]] for var in passed)
        return _Named(func, len(inputs), values, self._places(), self.names.names)

    def _shapes(self) -> Iterable[Size]:
        """The sizes in shapes: those of the parameters, then those of the kernel's own buffers."""
        buffers = [var for var in _all_variables(self.func.body) if tirx.is_buffer_var(var)]
        for buffer in dict.fromkeys([*self.tensors, *buffers]):
            yield from map(self.prims.size, buffer.shape)

    def _others(self) -> list[Size]:
        """The other sizes that the kernel computes with, each once."""
        found: dict[Size, None] = {}

        def visit(expr: Any) -> Any:
            if self._is_size(expr):
                found[self.prims.size(expr)] = None
                return tirx.IntImm("int64", 0)  # which ends the walk here
            return expr

        tvm_ffi.structural_map(self.func.body, (_SIZES, visit), order="pre")
        return list(found)

    def _is_size(self, expr: Any) -> bool:
        """Whether an expression over sizes alone is one of the index algebra (virtual/prims.py)."""
        return bool(self._dims_below(expr)) and str(expr.ty.dtype) == "int64"

    def _dims_below(self, expr: Any) -> int | None:
        """How many sizes an expression over sizes and numbers holds; None for any other.

        Of every index of a kernel: it ends at the first leaf that is neither.
        """
        if isinstance(expr, Var):
            return 1 if expr in self.dims else None
        if isinstance(expr, tirx.IntImm):
            return 0
        if isinstance(expr, tirx.Cast):
            return self._dims_below(expr.value)
        if not isinstance(expr, _SIZES):
            return None
        left = self._dims_below(expr.a)
        right = None if left is None else self._dims_below(expr.b)
        return None if left is None or right is None else left + right

    def _size(self, expr: Any) -> Any:
        """The largest expressions over sizes alone, in terms of names."""
        if not self._is_size(expr):
            return expr
        size = self.prims.size(expr)
        if size not in self.expressed:
            named = self.names.express(size)
            assert named is not None
            self.expressed[size] = to_prim(named, self.fresh)
        return self.expressed[size]

    def _buffer(self, var: Var) -> Var:
        """The buffer that stands for one whose shape has sizes in it."""
        if not tirx.is_buffer_var(var) or self.dims.isdisjoint(_scalars(var.shape)):
            return var
        if var not in self.buffers:
            shape = [self._size(dim) for dim in var.shape]
            dtype, scope = str(var.dtype), var.scope()
            self.buffers[var] = tirx.decl_buffer(shape, dtype, var.name, scope=scope)
        return self.buffers[var]

    def _places(self) -> dict[str, tuple[int, int | None]]:
        """Where callers find the dims of the old kernel."""
        places: dict[Var, tuple[int, int | None]] = {}
        for number, param in enumerate(self.params):
            if not tirx.is_buffer_var(param):
                places[param] = number, None
                continue
            for dim, size in enumerate(param.shape):
                if isinstance(size, Var):
                    places.setdefault(size, (number, dim))
        return {str(self.prims.size(var)): place for var, place in places.items()}


def _odd(param: Var) -> bool:
    """Whether a parameter is neither a tensor nor a size."""
    return not tirx.is_buffer_var(param) and str(param.ty.dtype) != "int64"


def _all_variables(node: Any) -> list[Var]:
    found: list[Var] = []
    tvm_ffi.structural_walk(node, (Var, found.append))
    return found


def _scalars(node: Any) -> list[Var]:
    """The scalar variables below a node, in order."""
    if isinstance(node, tirx.IntImm):
        return []
    if isinstance(node, Var):
        return [] if tirx.is_buffer_var(node) else [node]
    return [var for var in _all_variables(node) if not tirx.is_buffer_var(var)]
