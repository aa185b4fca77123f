"""A kernel and the loaders of what it reads, as one kernel.

    v = call_tir(loader, (x,))                    y = call_tir(kernel', (x, w))
    y = call_tir(kernel, (v, w))      becomes
                                      kernel' = { V[i] = X[map(i)];  the blocks of kernel over V }

Kernels that are alike, as those of the layers of a network are, are joined once.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import tvm
from tvm import relax, tirx
from tvm.ir import GenericConst

from tvmext.arch import dtype_bits
from tvmext.frontends.dims import USUAL, evaluate, names_of

from .emit import loader
from .prims import Prims, UnmappedError
from .tensor import VirtualTensor

Reading = Callable[[tirx.PrimFunc, frozenset[int], Mapping[str, Any]], tuple[str, Any]]
"""How a function some of whose parameters are weights is scheduled, by which rule, "" if none knows
it, and what its loads and its call cost, in cycles: a number, or an array where the sizes of the
free dims are arrays."""


BLOCKED = {("gemm", "conv"), ("gemm, words", "conv, words"), ("gemm", "sections")}
"""Rules one of which takes over from the other where rows are staged, turned or in sections."""


@dataclass(frozen=True)
class Operand:
    """What a kernel reads as one of its arguments, instead of a tensor in memory.

    The homes of `tensor` are named "#0", "#1", ... after their places among a kernel's sources.
    """

    tensor: VirtualTensor
    dtype: str
    operators: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Joined:
    """A kernel with loaders: its function, the call, and its rule and price.

    `args` are places among the sources, or sizes.
    """

    func: tirx.PrimFunc
    call: relax.Call
    args: tuple[int | relax.Expr, ...]
    rule: str
    cycles: Any


class Joiner:
    """Joins and prices the kernels of a module; what was done once is known."""

    def __init__(
        self, mod: tvm.IRModule, reading: Reading, prims: Prims, sizes: Mapping[str, Any]
    ) -> None:
        self.mod = mod
        self.reading = reading
        self.prims = prims
        self.sizes = sizes
        self.plain: dict[Hashable, tuple[str, Any]] = {}
        self.joined: dict[Hashable, Joined] = {}

    def read(self, call: relax.Call) -> tuple[str, Any]:
        """The rule and price of a kernel as it is."""
        args = call.args[1].fields
        weights = frozenset(k for k, arg in enumerate(args) if isinstance(arg, GenericConst))
        key = (call.args[0], weights)
        if key not in self.plain:
            self.plain[key] = self.reading(self.mod[call.args[0]], weights, self.sizes)
        return self.plain[key]

    def join(
        self,
        call: relax.Call,
        operands: Mapping[relax.Var, Operand],
        sources: Sequence[relax.Expr],
    ) -> tuple[Joined, list[relax.Expr]]:
        """The kernel of a call with loaders for some of its arguments, over `sources`.

        Also what the places in `Joined.args` are places in.
        """
        tensors = [arg for arg in call.args[1].fields if is_tensor(arg) and arg not in operands]
        outside = list(dict.fromkeys([*sources, *tensors]))
        key = self._key(call, operands, outside)
        if key not in self.joined:
            self.joined[key] = self._join(call, operands, outside)
        return self.joined[key], outside

    def _key(
        self, call: relax.Call, operands: Mapping[relax.Var, Operand], outside: list[relax.Expr]
    ) -> Hashable:
        """Calls of one key make the same kernel, for sources in the same places."""
        places = {expr: place for place, expr in enumerate([*outside, *operands])}
        args = [
            places[arg] if is_tensor(arg) else self.prims.size(arg) for arg in call.args[1].fields
        ]
        known = [
            (isinstance(e, GenericConst), self.prims.shape(e.ty), str(e.ty.dtype)) for e in outside
        ]
        sizes = [tuple(map(self.prims.size, arg.values)) for arg in call.args[2:]]
        types = [t for ty in call.ty_args for t in getattr(ty, "fields", [ty])]
        shapes = [self.prims.shape(ty) for ty in types]
        return (call.args[0], *args, *known, *operands.values(), *sizes, *shapes)

    def _join(
        self, call: relax.Call, operands: Mapping[relax.Var, Operand], sources: list[relax.Expr]
    ) -> Joined:
        """FuseTIR does it, in a module apart."""
        outside = {expr: relax.Var(f"arg{k}", expr.ty) for k, expr in enumerate(sources)}
        builder = relax.BlockBuilder()
        inside: dict[relax.Expr, relax.Var] = dict(outside)
        bindings = []
        homes = {f"#{k}": var for k, var in enumerate(outside.values())}
        for var, one in operands.items():
            read = {home.name: homes[home.name] for home in one.tensor.homes}
            made = loader(
                builder, one.tensor, read, self.prims, one.dtype, one.operators, select=True
            )
            ty = relax.TensorType(self.prims.prim_shape(one.tensor.shape), one.dtype)
            inside[var] = relax.DataflowVar(var.name, ty)
            bindings.append(relax.VarBinding(inside[var], made))
        callee = builder.add_func(self.mod[call.args[0]], call.args[0].name_hint)
        args = relax.Tuple([inside.get(arg, arg) for arg in call.args[1].fields])
        made = relax.Call(call.op, [callee, args, *call.args[2:]], call.attrs, call.ty_args)
        bindings.append(relax.VarBinding(relax.Var("result", call.ty), made))
        module, binding = fused(builder, bindings, outside)
        func = module[binding.value.args[0]]
        back = dict(zip(module["main"].params, range(len(sources))))
        used = tuple(back.get(arg, arg) for arg in binding.value.args[1].fields)
        weights = (
            k
            for k, arg in enumerate(used)
            if isinstance(arg, int) and isinstance(sources[arg], GenericConst)
        )
        return Joined(
            func, binding.value, used, *self.reading(func, frozenset(weights), self.sizes)
        )


def fused(
    builder: relax.BlockBuilder,
    bindings: list[relax.VarBinding],
    outside: Mapping[relax.Expr, relax.Var],
) -> tuple[tvm.IRModule, relax.VarBinding]:
    """The bindings as one kernel, and its only call, in ``main`` over the tensors in `outside`.

    All are calls of kernels, but for the last one: it may be the tuple of results.
    """
    result = bindings[-1].var
    dims = relax.Var("dims", relax.ShapeType(_dims(bindings, outside)))
    body = relax.SeqExpr([relax.DataflowBlock(bindings)], result)
    func = relax.Function([*outside.values(), dims], body, result.ty, is_pure=True)
    group = builder.add_func(func.with_attr("Primitive", True), "joined")
    params = [relax.Var(var.name, var.ty) for var in [*outside.values(), dims]]
    with builder.function("main", params):
        with builder.dataflow():
            out = builder.emit_output(relax.Call(group, params))
        builder.emit_func_output(out)
    module = relax.transform.FuseTIR()(builder.get())
    (binding,) = module["main"].body.blocks[0].bindings
    return module, binding


def _dims(bindings: Iterable[relax.VarBinding], tensors: Iterable[relax.Expr]) -> list[tirx.Var]:
    """The symbolic dims that the bindings mention and that no size of `tensors` is, each once."""
    found: dict[tirx.Var, None] = {}
    for binding in bindings:
        args = binding.value.args[1] if isinstance(binding.value, relax.Call) else binding.value
        for expr in (*args.fields, binding.var):
            found |= dict.fromkeys(relax.analysis.tir_vars_in_type(expr.ty))
            if not isinstance(expr.ty, relax.TensorType | relax.TupleType):
                found |= dict.fromkeys([expr])
    for tensor in tensors:
        for var in relax.analysis.definable_tir_vars_in_type(tensor.ty):
            found.pop(var, None)
    return list(found)


def is_tensor(expr: relax.Expr) -> bool:
    return isinstance(expr.ty, relax.TensorType)


def bytes_of(ty: Any, prims: Prims, usual: Mapping[str, int]) -> int:
    """The size of a tensor or of several, free dims at their usual sizes; 0 if nothing is known."""
    fields = ty.fields if isinstance(ty, relax.TupleType) else [ty]
    try:
        return sum(
            _elements(one, prims, usual) * -(-dtype_bits(str(one.dtype)) // 8) for one in fields
        )
    except (UnmappedError, ZeroDivisionError):
        return 0


def _elements(ty: Any, prims: Prims, usual: Mapping[str, int]) -> int:
    total = 1
    for size in prims.shape(ty):
        sizes = {name: usual.get(name, USUAL) for name in names_of(size)}
        total *= max(evaluate(size, sizes), 0)
    return total
